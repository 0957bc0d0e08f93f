"""The page of a node in a real browser: what it shows, by keyboard, on a phone, in the dark; what it disbelieves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import merganser as mg
from history.ways import ports
from merganser.pipeline.config import ServeConfig
from merganser.pipeline.serving.doors import Doors
from merganser.pipeline.serving.users.secrets import Cost, Hash
from merganser.pipeline.serving.users.users import User, changing
from merganser.schemas.table import SchemaVersion, Table, value_subject
from serving.world import world
from support.browser import Browser, Page, browser, no_browser
from support.frames import framed

pytestmark = pytest.mark.skipif(bool(no_browser()), reason=no_browser() or "there is one")

TABLE = "page-orders"
ROW = {
    "type": "record",
    "name": "row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "sku", "type": ["null", "string"], "default": None},
        {"name": "qty", "type": "int"},
    ],
}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@dataclass
class Shown:
    """A node on a real log, and its page."""

    log: mg.Log
    page: Page
    url: str

    def put(self, *ids: int, **row: Any) -> None:
        with self.log.producer() as producer:
            for id_ in ids:
                producer.put(TABLE, {"id": id_, "sku": "teal", "qty": 1, **row})

    def ask(self, sql: str) -> None:
        """By keyboard alone, from wherever the focus is."""
        self.page.run("document.getElementById('text').focus()")
        self.page.run("document.getElementById('text').select()")
        self.page.type(sql)
        self.page.press("Enter", "Control")


@pytest.fixture(scope="module")
def shown(broker: str, chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    log = mg.connect(broker)
    log.create_table(TABLE, ROW, ["id"], partitions=2)
    with log.producer() as producer:
        for id_ in range(40):
            producer.put(TABLE, {"id": id_, "sku": HOSTILE if id_ == 7 else f"sku {id_ % 4}", "qty": id_})
        producer.flush()
        producer.put(TABLE, {"id": 7, "sku": "late", "qty": 0}, if_absent=True)
    raw = Producer({"bootstrap.servers": broker})
    raw.produce(TABLE, key=b"no key", value=f"{HOSTILE} is no row".encode(), partition=0)
    raw.flush()
    store = tmp_path_factory.mktemp("page") / "shop.duckdb"
    with mg.Replica(store, log, "page", [TABLE]) as replica:
        with Doors(ServeConfig(http="127.0.0.1:0"), replica, log) as doors, chromium.page() as page:
            assert doors.http is not None
            page.size(1280)
            page.open(doors.http)
            page.until("the table", "document.querySelectorAll('#tables tbody').length === 1")
            yield Shown(log, page, doors.http)


@pytest.fixture(autouse=True)
def _quiet(chromium: Browser) -> Iterator[None]:
    """Nothing goes wrong in the page unseen: no exception, no refused script, no dialogue."""
    chromium.complaints.clear()
    yield
    assert chromium.complaints == []


# -- what it shows ---------------------------------------------------------------------------


def rows_of(page: Page) -> int:
    return int(page.text("#tables [data-label=Rows]").replace(",", "").replace("–", "-1"))


def test_rows_appear_by_themselves(shown: Shown) -> None:
    shown.page.until("all rows", "document.querySelector('#tables [data-label=Rows]').textContent === '40'")
    shown.put(1000, 1001, 1002)
    shown.page.until("the new ones", "document.querySelector('#tables [data-label=Rows]').textContent === '43'")
    shown.page.until("being up to date", "document.getElementById('headline').textContent === 'Up to date'")
    assert shown.page.run("document.querySelectorAll('#rate-chart .area').length") == 1
    assert shown.page.text("#group") == "page"


def test_the_newest_rows_and_the_place_in_each_partition_open_by_keyboard(shown: Shown) -> None:
    shown.page.run("document.querySelector('.fold').focus()")
    shown.page.press("Enter")
    shown.page.until("the newest rows", "document.querySelectorAll('.detail .frame').length === 2")
    shown.put(2000, sku="just now")
    shown.page.until("that row", "document.querySelector('.detail .frame').textContent.includes('just now')")
    assert shown.page.run("document.querySelector('.fold').getAttribute('aria-expanded')") == "true"
    places = "document.querySelectorAll('.detail .frame')[1].querySelectorAll('.rows > tbody > tr').length"
    assert shown.page.run(places) == 2
    shown.page.press("Enter")
    assert shown.page.run("document.querySelector('.detail').hidden")


def test_quarantine_and_rejections_are_listed_with_their_reasons(shown: Shown) -> None:
    shown.page.until("both", "document.querySelectorAll('#quarantine tbody tr, #rejections tbody tr').length === 2")
    assert shown.page.text("#quarantine-title") == "Quarantine: 1"
    assert "first byte" in shown.page.text("#quarantine") and shown.page.text("#rejections-title") == "Rejections: 1"
    assert "if_absent" in shown.page.text("#rejections") or "absent" in shown.page.text("#rejections")


def test_the_state_is_a_sentence_with_the_reason_and_the_way_out(shown: Shown) -> None:
    steady: dict[str, Any] = {
        "failed": None,
        "log_away": None,
        "waiting_for": None,
        "ready": True,
        "not_ready": None,
        "lag": 0,
    }
    steady["unfollowed"] = []
    table = {"table": "orders", "stopped": None, "way_out": None, "open_transactions": []}

    def state(pace: int = 100, table_: dict[str, Any] | None = None, **facts: Any) -> Any:
        live = json.dumps({**steady, "tables": [{**table, **(table_ or {})}], **facts})
        return shown.page.run(f"import('/state.js').then((m) => m.stateOf({live}, {pace}))")

    assert state()["headline"] == "Up to date" and state(lag=150)["kind"] == "good"
    assert state(lag=5000)["headline"] == "Behind: 5,000 records to go, about 50 s at this pace"
    stopped = state(table_={"stopped": "the topic was deleted", "way_out": "start a new store"})
    assert stopped["kind"] == "bad" and stopped["headline"] == "orders is stopped"
    assert stopped["reasons"] == [{"why": "orders: the topic was deleted", "hint": "start a new store"}]
    assert state(log_away="no broker answers")["headline"] == "The log does not answer"
    [old] = state(unfollowed=["ducks"])["reasons"]
    assert old["why"].startswith("ducks is in the store and not followed") and "--tables" in old["hint"]
    assert state(failed="no space left")["headline"].startswith("Stopped")


# -- the SQL box -------------------------------------------------------------------------------


def test_a_query_runs_by_keyboard_alone(shown: Shown) -> None:
    shown.page.open(shown.url)
    shown.page.until("the box", "document.getElementById('text').value !== ''")
    for _ in range(40):
        shown.page.press("Tab")
        seen = shown.page.run(
            "(() => { const e = document.activeElement, s = getComputedStyle(e), width = parseFloat(s.outlineWidth);"
            " return [e.id, e.matches(':focus-visible') && s.outlineStyle !== 'none' && width >= 1] })()"
        )
        assert seen[1], f"the focus on {seen[0]!r} cannot be seen"
        if seen[0] == "text":
            break
    assert shown.page.run("document.activeElement.id") == "text"
    shown.page.press("a", "Control")
    shown.page.type(f'select sku, sum(qty) as n, null as nothing from "{TABLE}" where id < 4 group by sku order by 1')
    shown.page.press("Enter", "Control")
    shown.page.until("four rows", "document.querySelectorAll('#answer .rows tbody tr').length === 4")
    assert shown.page.text("#answer .about strong") == "4 rows" and f"{TABLE}/0:" in shown.page.text("#answer .place")
    assert shown.page.text("#answer tbody tr td:nth-child(3)") == "NULL"
    assert shown.page.run("getComputedStyle(document.querySelector('#answer td:nth-child(2)')).textAlign") == "right"
    assert shown.page.run("document.querySelectorAll('#answer .chart rect').length") == 4
    shown.page.press("Tab")
    for _ in range(8):
        if shown.page.run("document.activeElement.id") == "explain":
            break
        shown.page.press("Tab")
    shown.page.press("Enter")
    shown.page.until("the plan", f"document.querySelector('.plan')?.textContent.includes({json.dumps(TABLE)})")


def test_earlier_queries_outlive_a_reload_and_names_are_completed(shown: Shown) -> None:
    shown.ask("select 41 + 1 as answer")
    shown.page.until("the answer", "document.querySelector('#answer td')?.textContent === '42'")
    shown.page.open(shown.url)
    shown.page.until("the history", "document.querySelectorAll('#history option').length > 1")
    assert "41 + 1" in shown.page.run("document.querySelectorAll('#history option')[1].value")
    shown.page.until("the names", "document.querySelectorAll('#names .name').length > 3")
    shown.page.run("document.getElementById('text').focus()")
    shown.page.press("a", "Control")
    shown.page.type("select _off")
    shown.page.until("the name that fits", "document.querySelector('.chip')?.textContent === '_offset'")
    shown.page.press(" ", "Control")
    assert shown.page.run("document.getElementById('text').value") == "select _offset"


def test_an_error_is_one_line_with_a_hint(shown: Shown) -> None:
    shown.ask("select nothing_like_it from nowhere_at_all")
    shown.page.until("the error", "!!document.querySelector('#answer .error')")
    assert "nowhere_at_all" in shown.page.text("#answer .error strong")
    assert shown.page.text("#answer .error .hint").strip()
    shown.ask("delete from x")
    shown.page.until("the refusal", "document.querySelector('#answer .error')?.textContent.includes('SELECT')")
    chromium_logs_refusals(shown.page)


def test_a_long_answer_is_cut_and_hung_up_on(shown: Shown) -> None:
    shown.ask("select range as n, repeat('x', 1000) as long from range(20000)")
    shown.page.until("the first rows", "document.querySelectorAll('#answer tbody tr').length === 1000")
    assert "the rest was not fetched" in shown.page.text("#answer .about strong")
    live = "fetch('/metrics').then((r) => r.text()).then((t) => t.includes('merganser_answers_open 0.0'))"
    shown.page.until("nobody to read the rest", live)
    csv = shown.page.run(
        "import('/result.js').then((m) => m.csvOf({columns: [{name: 'a'}, {name: 'b,c'}],"
        " rows: [[1, null], ['x', ''], ['\"', '2']]}))"
    )
    assert csv == 'a,"b,c"\r\n1,\r\nx,""\r\n"""",2\r\n'


def chromium_logs_refusals(page: Page) -> None:
    """Chromium notes each answer that is no 2xx; those were asked for."""
    page.complaints[:] = [line for line in page.complaints if "Failed to load resource" not in line]


# -- what it does not believe ------------------------------------------------------------------


def images(page: Page) -> Any:
    return page.run("[...document.querySelectorAll('img, script')].map((e) => new URL(e.src).pathname).sort()")


def test_markup_in_a_value_stays_text(shown: Shown) -> None:
    column = HOSTILE.replace('"', '""')
    shown.ask(f'select sku as "{column}", 1 as n from "{TABLE}" where id = 7 union all select \'</td><script>x\', 2')
    shown.page.until("the value", f"document.querySelector('#answer').textContent.includes({json.dumps(HOSTILE)})")
    assert shown.page.text("#answer th").startswith(HOSTILE)
    assert images(shown.page) == ["/app.js", "/icon.svg"]


def test_markup_in_the_name_of_a_table_stays_text(chromium: Browser, tmp_path: Path) -> None:
    with strange_node(tmp_path, HOSTILE) as url, chromium.page() as page:
        page.open(url)
        page.until("the table", f"document.querySelector('.fold')?.textContent === {json.dumps(HOSTILE)}")
        page.until("the list", f"document.getElementById('names').textContent.includes({json.dumps(HOSTILE)})")
        page.until("the legend", f"document.getElementById('legend').textContent === {json.dumps(HOSTILE)}")
        page.run("document.querySelector('.fold').click()")
        page.until("its row", "document.querySelectorAll('.detail .frame').length === 2")
        page.until("the chart", "!!document.querySelector('#rate-chart .line')")
        page.run("document.getElementById('rate-chart').focus()")
        page.press("ArrowLeft")
        assert HOSTILE in page.text("#rate-chart .tip") and HOSTILE in page.text("#rate-chart [role=status]")
        assert images(page) == ["/app.js", "/icon.svg"]


def test_nothing_comes_from_elsewhere(shown: Shown) -> None:
    assert shown.page.run("performance.getEntriesByType('resource').every((e) => e.name.startsWith(location.origin))")
    headers = "fetch('/').then((r) => r.headers.get('content-security-policy'))"
    policy = shown.page.run(headers)
    assert "default-src 'self'" in policy and "unsafe" not in policy


@contextmanager
def strange_node(folder: Path, name: str) -> Iterator[str]:
    """A node with a table of a name that Kafka would not take."""
    with world(folder, rows=1) as real:
        schema = SchemaVersion(value_subject(name), 1, 300, ROW)
        real.log.add(Table(name, "id-strange", 1, (schema,), (), "none", None))
        real.log.put(name, 0, None, framed(300, ROW, {"id": 1, "sku": HOSTILE, "qty": 1}))
        with mg.Replica(folder / "strange.duckdb", real.log, "strange", [name]) as replica:
            with Doors(ServeConfig(http="127.0.0.1:0"), replica, real.log) as doors:
                assert doors.http is not None
                yield doors.http


# -- for everybody -----------------------------------------------------------------------------

_CONTRAST = (Path(__file__).parent.parent / "support" / "contrast.js").read_text()


@pytest.mark.parametrize(("where", "begins"), [("focus", ""), ("blur", "select * from ")])
def test_an_example_is_not_written_where_somebody_is_about_to_type(shown: Shown, where: str, begins: str) -> None:
    shown.page.open(shown.url)
    said = shown.page.run(f"""(async () => {{
        const {{ SqlBox }} = await import("/sql.js");
        const box = new SqlBox();
        box.text.value = "";
        box.text.{where}();
        await box.learn();
        return box.text.value;
    }})()""")
    assert said.startswith(begins) and bool(said) == bool(begins)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_legible_and_fits_the_screen(shown: Shown, width: int, dark: bool) -> None:
    page = shown.page
    page.size(width, 800, dark)
    page.open(shown.url)
    page.until("the table", "document.querySelectorAll('#tables tbody').length === 1")
    page.run("document.querySelector('.fold').click()")
    shown.ask(f"select *, repeat('long ', 80) as text from \"{TABLE}\" order by id limit 20")
    page.until("the answer", "document.querySelectorAll('#answer tbody tr').length === 20")
    page.until("the detail", "document.querySelectorAll('.detail .frame').length === 2")
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run(_CONTRAST) == []
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) is dark
    page.size(1280)


def test_every_control_has_a_name(shown: Shown) -> None:
    page = shown.page
    page.open(shown.url)
    page.until("the names", "document.querySelectorAll('#names .name').length > 3")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "link", "textbox", "combobox", "spinbutton", "region", "DisclosureTriangle"}
    found = [n for n in nodes if not n["ignored"] and n["role"]["value"] in controls]
    unnamed = [n for n in found if not n.get("name", {}).get("value", "").strip()]
    assert {n["role"]["value"] for n in found} >= {"button", "link", "textbox", "combobox", "DisclosureTriangle"}
    assert unnamed == []


def test_a_chart_is_read_by_arrow_keys(shown: Shown) -> None:
    page = shown.page
    page.run("document.getElementById('lag-chart').focus()")
    page.press("ArrowLeft")  # also when there may be nothing yet
    page.until("some samples", "document.querySelectorAll('#lag-chart polyline').length === 1")
    page.run("document.getElementById('lag-chart').focus()")
    page.press("ArrowLeft")
    assert TABLE in page.text("#lag-chart .tip") and not page.run("document.querySelector('#lag-chart .tip').hidden")
    page.press("Escape")
    assert page.run("document.querySelector('#lag-chart .tip').hidden")


# -- a node that goes away, and who may come in ------------------------------------------------


def test_a_node_that_goes_away_is_told_of_and_comes_back(chromium: Browser, tmp_path: Path) -> None:
    with world(tmp_path, rows=5) as opened, chromium.page() as page, ports(1) as [port]:
        config = ServeConfig(http=f"127.0.0.1:{port}")
        with Doors(config, opened.replica, opened.log) as doors:
            page.open(str(doors.http))
            page.until("being up to date", "document.getElementById('headline').textContent === 'Up to date'")
        page.until("its absence", "document.getElementById('headline').textContent === 'The node does not answer'")
        assert "Asking again" in page.text("#reasons") and rows_of(page) == 1  # what was seen last stays
        with Doors(config, opened.replica, opened.log):
            page.until("its return", "document.getElementById('headline').textContent === 'Up to date'")
            opened.put("hidden", 2)
            page.until("it goes on", "document.querySelector('#tables [data-label=Rows]').textContent === '2'")
    chromium_logs_refusals(page)


def test_who_may_come_in_is_asked_once_and_nothing_is_stored(chromium: Browser, tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    with changing(users) as change:
        password = Hash.of("correct horse", Cost(4, 8, 1))
        change.add(User("reader", "reader", frozenset({"orders"}), password))
    with world(tmp_path, rows=5) as opened, chromium.page() as page:
        with Doors(ServeConfig(http="127.0.0.1:0", users=users), opened.replica, opened.log) as doors:
            assert doors.http is not None
            page.open(doors.http)
            page.until("the question", "document.getElementById('login').open")
            page.type("reader")
            page.press("Tab")
            page.type("wrong")
            page.press("Enter")
            page.until("the refusal", "document.getElementById('login-error').textContent !== ''")
            page.type("correct horse")
            page.press("Enter")
            page.until("the table that is granted", "document.querySelector('.fold')?.textContent === 'orders'")
            assert page.text("#user") == "reader (reader)"
            assert page.run("document.querySelectorAll('.fold').length") == 1
            kept = page.run("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
            assert "correct" not in kept and "Basic" not in kept
    chromium_logs_refusals(page)


def test_the_members_of_a_split_group_and_what_each_has(broker: str, chromium: Browser, tmp_path: Path) -> None:
    with mg.connect(broker) as log, ExitStack() as stack:
        table = log.create_table("page-shared", ROW, ["id"], partitions=2).name
        one, _ = (
            stack.enter_context(mg.Replica(tmp_path / f"{n}.duckdb", log, "page-shared", [table], split=True))
            for n in "ab"
        )
        doors = stack.enter_context(Doors(ServeConfig(http="127.0.0.1:0"), one, log))
        page = stack.enter_context(chromium.page())
        page.open(str(doors.http))
        share = "Array.from(document.querySelectorAll('#shares dd'), (dd) => dd.textContent).sort().join()"
        page.until("one partition each", f"{share} === 'page-shared: 0,page-shared: 1'", timeout_s=60)
        assert page.text("#members-title") == "Members: 2"
        page.until("it to be ready", "document.getElementById('headline').textContent === 'Up to date'")
