// The guest in Node: a command a line from standard input, what happened a line to standard output.

import { createInterface } from "node:readline";

import { Guest } from "./guest.mjs";

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const guest = new Guest(tell);
for await (const line of createInterface({ input: process.stdin })) void guest.obey(JSON.parse(line));
process.exit();
