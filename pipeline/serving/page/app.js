// The page of a node: asks it each second how it is, and shows that.

import { Aside } from "./aside.js";
import { Chart } from "./chart.js";
import { byId, count, duration, h, rate, tell } from "./dom.js";
import { get, loggedIn, logIn, logOut } from "./door.js";
import { Pulse } from "./pulse.js";
import { SqlBox } from "./sql.js";
import { stateOf } from "./state.js";
import { Tables } from "./tables.js";

const EVERY_MS = 1000;

const pulse = new Pulse();
const tables = new Tables(byId("tables"), pulse);
const box = new SqlBox();
const aside = new Aside();
const rateChart = new Chart(byId("rate-chart"), "Records applied a second, by table, over the last minutes");
const lagChart = new Chart(byId("lag-chart"), "Records that the replica lacks, by table, over the last minutes");

let began = null;
let awaySince = null;
let timer = null;
let asking = false;

async function look() {
  clearTimeout(timer);
  if (asking || byId("login").open) return;
  asking = true;
  try {
    show(await get(`/live?since=${pulse.since}`));
  } catch (error) {
    if (error.status === 401 || error.status === 429) return askWho(error);
    missed(error);
  } finally {
    asking = false;
  }
  // A page that nobody sees asks nothing; what it missed it gets when it is looked at again.
  if (!document.hidden) timer = setTimeout(look, EVERY_MS);
}

function show(live) {
  if (live.began !== began) {
    began = live.began;
    pulse.forget();
    live.tables.toSorted((a, b) => (b.puts ?? 0) - (a.puts ?? 0)).forEach((table) => pulse.colour(table.table));
    box.learn();
  }
  awaySince = null;
  byId("page").classList.remove("away");
  pulse.add(live.pulse);
  head(live);
  charts(live);
  tables.show(live.tables);
  aside.show(live);
}

function head(live) {
  tell(byId("group"), live.group);
  document.title = `${live.group} · Merganser`;
  const many = live.user.name === "local" || live.user.name === "anybody";
  tell(byId("user"), many ? "" : `${live.user.name} (${live.user.role})`);
  byId("logout").hidden = !loggedIn();
  const pace = [...pulse.tables.keys()].reduce((sum, name) => sum + (pulse.pace(name) ?? 0), 0);
  state(stateOf(live, pace));
  facts(byId("facts"), [
    ["Tables", count(live.tables.length)],
    ["Rows", count(live.tables.reduce((sum, table) => sum + (table.rows ?? 0), 0))],
    ["Log looked at", live.lag_seen_s === null ? "not yet" : `${duration(live.lag_seen_s)} ago`],
    ["Queries running", count(live.queries.running)],
    ["Up for", duration(live.uptime_s)],
    ["Cluster", live.cluster],
  ]);
}

function state({ kind, headline, reasons }) {
  byId("state").className = `state ${kind}`;
  tell(byId("headline"), headline);
  const told = JSON.stringify(reasons);
  if (byId("reasons").dataset.told === told) return;
  byId("reasons").dataset.told = told;
  byId("reasons").replaceChildren(...reasons.map(({ why, hint }) =>
    h("li", {}, why, hint ? h("span", { class: "hint" }, ` What to do: ${hint}.`) : null)));
}

export function facts(list, pairs) {
  while (list.children.length > pairs.length) list.lastElementChild.remove();
  pairs.forEach(([name, value], i) => {
    if (!list.children[i]) list.append(h("div", {}, h("dt"), h("dd")));
    tell(list.children[i].firstElementChild, name);
    tell(list.children[i].lastElementChild, value);
  });
}

function charts(live) {
  const names = [...pulse.tables.keys()];
  tell(byId("rate-now"), rate(names.reduce((sum, name) => sum + (pulse.pace(name) ?? 0), 0)));
  tell(byId("lag-now"), count(live.lag));
  const shape = { kind: "layers", x: pulse.times, xText: (moment) => pulse.clock(moment) };
  const rates = pulse.series((name) => pulse.rates(name));
  if (pulse.times.length) {
    rateChart.show({ ...shape, series: rates });
    lagChart.show({ ...shape, series: pulse.series((name) => pulse.lags(name)) });
  }
  const told = rates.map((series) => series.name).join("\n");
  if (byId("legend").dataset.told === told) return;
  byId("legend").dataset.told = told;
  byId("legend").replaceChildren(...rates.map((series) => h("li", {}, h("i", { class: `key c${series.colour}` }), series.name)));
}

/** What was seen last stays, and it is told since when. */
function missed(error) {
  awaySince ??= Date.now();
  byId("page").classList.add("away");
  const since = duration(Math.max(1, (Date.now() - awaySince) / 1000));
  const headline = error.status === 0 ? "The node does not answer" : "The node cannot tell how it is";
  state({ kind: "bad", headline, reasons: [{ why: `${error.status === 0 ? "" : `${error.message}. `}For ${since}. Asking again each second; what is below was seen last.`, hint: error.hint }] });
}

// -- who asks ----------------------------------------------------------------------------------

let refused = false;

function askWho(error) {
  tell(byId("login-error"), refused ? error.message : "");
  tell(byId("headline"), "Log in to see the node");
  if (!byId("login").open) byId("login").showModal();
  if (refused) byId("password").focus();
}

byId("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(byId("name").value.trim(), byId("password").value);
  byId("password").value = "";
  refused = true;
  byId("login").close();
});
byId("login").addEventListener("close", look);
byId("logout").addEventListener("click", () => {
  logOut();
  location.reload();
});

document.addEventListener("visibilitychange", () => document.hidden || look());
look();
