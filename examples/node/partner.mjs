// Prints the partner's answer to each path on standard input: echo /fleets | node partner.mjs DIR BASE_URL
import fs from "node:fs";
import https from "node:https";
import path from "node:path";
import readline from "node:readline";
import { text } from "node:stream/consumers";

/** Makes requests with the credentials in DIR/current, and reads them again when a rotation has moved the link. */
class Partner {
  #link;
  #credentials;

  constructor(directory) {
    this.#link = path.join(directory, "current");
  }

  async get(address) {
    const { agent, auth, clientId } = this.#current();
    const url = new URL(address);
    url.searchParams.set("client_id", clientId);
    const response = await new Promise((resolve, reject) => {
      https.get(url, { agent, auth, signal: AbortSignal.timeout(60_000) }, resolve).on("error", reject);
    });
    return text(response);
  }

  #current() {
    const generation = fs.realpathSync(this.#link); // all files are read from one generation
    if (generation === this.#credentials?.generation) return this.#credentials;
    const read = (name) => fs.readFileSync(path.join(generation, name), "utf8");
    const agent = new https.Agent({ key: read("tls.key"), cert: read("tls.crt"), ca: read("ca.crt"), keepAlive: true });
    if (this.#credentials) retire(this.#credentials.agent);
    const auth = `${read("username")}:${read("password")}`;
    return (this.#credentials = { generation, agent, auth, clientId: read("client_id") });
  }
}

/** Ends the connections of a displaced agent: the idle ones now, the others with their requests. */
function retire(agent) {
  agent.maxFreeSockets = 0;
  for (const socket of Object.values(agent.freeSockets).flat()) socket.destroy();
}

const [directory, baseUrl] = process.argv.slice(2);
const partner = new Partner(directory);
for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(await partner.get(baseUrl + line));
}
