// What is not in the tables: quarantine, rejections, and what else the node does.

import { byId, count, duration, h, tell } from "./dom.js";
import { query } from "./door.js";
import { into } from "./tables.js";
import { tableOf } from "./result.js";

const SHOWN = 50;

const LISTS = {
  quarantine: `SELECT topic AS "table", reason, partition, "offset", timestamp AS "when" FROM _merganser.quarantine
    ORDER BY timestamp DESC, "offset" DESC LIMIT ${SHOWN}`,
  rejections: `SELECT topic AS "table", reason, partition, "offset", timestamp AS "when", tx FROM _merganser.rejections
    ORDER BY timestamp DESC, "offset" DESC LIMIT ${SHOWN}`,
};

export class Aside {
  constructor() {
    this.told = {};
  }

  show(live) {
    const sum = (name) => live.tables.reduce((all, table) => all + (table[name] ?? 0), 0);
    this.list("quarantine", sum("quarantined"), live);
    this.list("rejections", sum("rejected"), live);
    this.members(live.members);
    this.beside(live);
  }

  /** Who shares a split group; a replica that has all partitions has none. */
  members(members) {
    byId("members").hidden = !members;
    if (!members) return;
    tell(byId("members-title"), `Members: ${count(members.length)}`);
    const share = ({ partitions }) => Object.entries(partitions).map(([table, numbers]) => `${table}: ${numbers.join(", ")}`).join("; ");
    byId("shares").replaceChildren(...members.map((each) =>
      h("div", {}, h("dt", { title: each.member }, `${each.member.slice(0, 24)} at ${each.host}`), h("dd", {}, share(each) || "no partitions"))));
  }

  /** Ask for the list only when its number changed. */
  list(name, number, live) {
    const now = `${live.began} ${number} ${live.user.reads_all}`;
    if (this.told[name] === now) return;
    this.told[name] = now;
    tell(byId(`${name}-title`), `${name[0].toUpperCase()}${name.slice(1)}: ${count(number)}`);
    const host = byId(name);
    if (!number) host.replaceChildren(h("p", { class: "none" }, "None."));
    else if (!live.user.reads_all) host.replaceChildren(h("p", { class: "none" }, "Shown to who may read all tables."));
    else into(host, async () => {
      const answer = await query({ sql: LISTS[name], timeout: 10 }, SHOWN);
      const rest = number > answer.rows.length && answer.rows.length === SHOWN ? h("p", { class: "hint" }, `The newest ${SHOWN}; all are in _merganser.${name}.`) : null;
      return h("div", {}, tableOf(answer, `${name}, newest first`), rest);
    });
  }

  beside({ archive, backup, flight }) {
    byId("beside").hidden = !archive && !backup && !flight;
    const pairs = flight ? [["Flight SQL", flight.url]] : [];
    if (archive) {
      pairs.push(["Archive", archive.failed ?? archive.waiting_for ?? "runs"]);
      pairs.push(["Archived up to", shortened(archive.position) || "nothing yet"]);
      for (const [table, why] of Object.entries(archive.stopped)) pairs.push([`Archive of ${table}`, `stopped: ${why}`]);
    }
    if (backup) {
      pairs.push(["Last backup", backup.last ?? "none yet"]);
      if (backup.next) pairs.push(["Next backup", `${backup.next_type}, ${soon(backup.next)}`]);
      if (backup.waiting_for) pairs.push(["Backups wait for", backup.waiting_for]);
      if (backup.failed) pairs.push(["Backups fail", backup.failed]);
    }
    byId("parts").replaceChildren(...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }
}

const shortened = (text) => (text.length > 200 ? `${text.slice(0, 200)}…` : text);

function soon(moment) {
  const seconds = (Date.parse(moment) - Date.now()) / 1000;
  return seconds > 0 ? `in ${duration(seconds)}` : "due";
}
