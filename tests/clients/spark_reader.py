"""Reads through Spark, over JDBC: as ReadOwnWrites.java, but for the catalog. Runs in an environment that has pyspark
and nothing of ours. ``python spark_reader.py JAR URL SQL``.
"""

from __future__ import annotations

import sys
from urllib.parse import quote

from pyspark.sql import SparkSession

SOLD_AT = "date_format(sold_at, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'\")"
JAVA = "--add-opens=java.base/java.nio=ALL-UNNAMED -Duser.timezone=UTC"


def main() -> None:
    jar, url, sql = sys.argv[1:]
    building = SparkSession.builder.master("local[1]").config("spark.jars", jar).config("spark.ui.enabled", "false")
    building = building.config("spark.driver.extraJavaOptions", JAVA).config("spark.sql.session.timeZone", "UTC")
    spark = building.getOrCreate()
    print(spark.version, flush=True)
    for line in sys.stdin:
        token, sale = line.split()
        reading = spark.read.format("jdbc").option("driver", "org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver")
        reading = reading.option("url", f"{url}&merganser-after={quote(token)}").option("query", f"{sql}{int(sale)}")
        [row] = reading.load().selectExpr("sku", "qty", "price", SOLD_AT, "ticks", "wrong", "offsets").collect()
        print(*row, sep="\t", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
