# One replica: docker run merganser replica run --store /var/lib/merganser/shop.duckdb --group shop --tables orders ...
FROM python:3.12-slim

COPY . /src
RUN pip install --no-cache-dir "/src[serve,registry]" && rm -rf /src

# The volume takes the folder's owner from the image when it is first used.
RUN useradd --system --home-dir /var/lib/merganser --create-home merganser
USER merganser
WORKDIR /var/lib/merganser
VOLUME /var/lib/merganser

# SIGTERM ends a node cleanly, and pid 1 is the node itself.
ENTRYPOINT ["merganser"]
