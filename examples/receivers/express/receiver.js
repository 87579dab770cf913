// A receiver in Express: verify, keep, answer at once, act once. See README.md.
"use strict";

const crypto = require("node:crypto");
const express = require("express");
const { Pool } = require("pg");

const KEY = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const TOLERANCE_SECONDS = 300;
const AGAIN_MS = 1000;

const pool = new Pool({ connectionString: process.env.DATABASE_URL });
const TABLE = `CREATE TABLE IF NOT EXISTS inbox (
  id text PRIMARY KEY, body jsonb NOT NULL, received_at timestamptz DEFAULT now(), done_at timestamptz)`;

// Yours. What it writes through this client is written once: it is one transaction with the mark.
async function act(client, event) {
  console.log("acting on", event.type);
}

function isGenuine(headers, body) {
  const { "webhook-id": id = "", "webhook-timestamp": timestamp = "", "webhook-signature": given = "" } = headers;
  if (!/^\d+$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const digest = crypto.createHmac("sha256", KEY).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${digest}`);
  return given.split(" ").map((each) => Buffer.from(each)).some(
    (each) => each.length === expected.length && crypto.timingSafeEqual(each, expected));
}

// One after the other. Several processes may do this at once: each takes rows that no other has.
async function actOnNext() {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const { rows } = await client.query(
      "SELECT id, body FROM inbox WHERE done_at IS NULL ORDER BY received_at LIMIT 1 FOR UPDATE SKIP LOCKED");
    for (const row of rows) {
      await act(client, row.body);
      await client.query("UPDATE inbox SET done_at = now() WHERE id = $1", [row.id]);
    }
    await client.query("COMMIT");
    return rows.length > 0;
  } catch (error) {
    await client.query("ROLLBACK");
    console.log("failed, and tried again:", error.message);
    return false;
  } finally {
    client.release();
  }
}

let working = Promise.resolve();
function work() {
  working = working.then(async () => { while (await actOnNext()); }).catch((error) => console.log(error.message));
}

const app = express();
// The bytes as they came: the signature is over them, so no parser may touch them first.
app.post("/webhooks", express.raw({ type: () => true, limit: "1mb" }), async (request, response, next) => {
  try {
    const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    if (!isGenuine(request.headers, body)) return response.sendStatus(401);
    const added = await pool.query(
      "INSERT INTO inbox (id, body) VALUES ($1, $2) ON CONFLICT DO NOTHING",
      [request.headers["webhook-id"], body.toString()]);
    response.sendStatus(added.rowCount === 1 ? 204 : 200);
    work();
  } catch (error) { next(error); }
});

pool.query(TABLE).then(() => app.listen(Number(process.env.PORT || 9000), "127.0.0.1"));
work();
setInterval(work, AGAIN_MS); // what failed, and what an earlier run left undone
