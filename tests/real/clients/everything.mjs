// Does with the official JavaScript client what the cases do with kubectl.
//
//     everything.mjs KUBECONFIG NAMESPACE POD_DIRECTORY PORT USER [GROUP...]
//
// The arguments are those of everything.py. The first thing that is not as it should be ends it.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { appendFileSync, createReadStream, readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { PassThrough, Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import * as k8s from "@kubernetes/client-node";

const [kubeconfig, namespace, directory, port, user, ...groups] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);

const within = (seconds, what, promise) =>
  Promise.race([promise, sleep(seconds * 1000, null, { ref: true }).then(() => assert.fail(`gave up waiting: ${what}`))]);

// Collects what is written to it, and can wait for a text in it.
class Sink extends Writable {
  text = "";
  hash = createHash("md5");
  bytes = 0;
  _write(chunk, _encoding, done) {
    this.hash.update(chunk);
    this.bytes += chunk.length;
    if (this.bytes < 100_000) this.text += chunk;
    this.emit("more");
    done();
  }
  async until(text) {
    while (!this.text.includes(text)) {
      await within(10, `${text} after ${this.text}`, new Promise((more) => this.once("more", more)));
    }
    this.text = this.text.slice(this.text.indexOf(text) + text.length);
  }
}

async function whoami() {
  const review = await config.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
  if (user === "-") return;
  assert.equal(review.status.userInfo.username, user);
  assert.deepEqual(review.status.userInfo.groups, [...groups, "system:authenticated"]);
}

async function objects() {
  const name = "javascript";
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { value: "first" } } });
  const body = { metadata: { name }, data: { value: "second" } };
  await core.replaceNamespacedConfigMap({ name, namespace, body });
  assert.deepEqual((await core.readNamespacedConfigMap({ name, namespace })).data, { value: "second" });
  await core.deleteNamespacedConfigMap({ name, namespace });
}

async function watch() {
  const seen = [];
  const version = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
  let ended;
  const over = new Promise((resolve) => (ended = resolve));
  const request = await new k8s.Watch(config).watch(
    `/api/v1/namespaces/${namespace}/configmaps`,
    { resourceVersion: version },
    (type, object) => {
      seen.push(`${type} ${object.metadata.name}`);
      if (seen.length === 2) ended();
    },
    () => {},
  );
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "seen" } } });
  await core.deleteNamespacedConfigMap({ name: "seen", namespace });
  await within(10, "both events", over);
  request.abort();
  assert.deepEqual(seen, ["ADDED seen", "DELETED seen"]);
}

async function logs() {
  writeFileSync(`${directory}.log`, "first\n");
  const sink = new Sink();
  const request = await new k8s.Log(config).log(namespace, "web", "main", sink, { follow: true });
  await sink.until("first\n");
  appendFileSync(`${directory}.log`, "second\n");
  await sink.until("second\n");
  request.abort();
}

// Runs a command; resolves to its exit code.
async function exec(container, command, stdout, stderr, stdin, tty) {
  let ended;
  const status = new Promise((resolve) => (ended = resolve));
  const socket = await new k8s.Exec(config).exec(namespace, "web", container, command, stdout, stderr, stdin, tty, ended);
  const answer = await within(60, `the end of ${command}`, status);
  socket.close();
  if (answer.status === "Success") return 0;
  return Number(answer.details.causes.find((cause) => cause.reason === "ExitCode").message);
}

async function commands() {
  const [stdout, stderr] = [new Sink(), new Sink()];
  const command = ["sh", "-c", "read line; echo out $line; echo err >&2; exit 3"];
  assert.equal(await exec("main", command, stdout, stderr, Readable.from(["in\n"]), false), 3);
  assert.equal(stdout.text, "out in\n");
  assert.equal(stderr.text, "err\n");
}

async function terminal() {
  const stdout = Object.assign(new Sink(), { rows: 40, columns: 132 });
  const stdin = new PassThrough();
  const code = exec("terminal", ["env", "PS1=# ", "sh"], stdout, null, stdin, true);
  await stdout.until("#");
  stdin.write("sleep 0.3; stty size\r");
  await stdout.until("40 132");
  Object.assign(stdout, { rows: 24, columns: 80 }).emit("resize");
  stdin.write("sleep 0.3; stty size\r");
  await stdout.until("24 80");
  stdin.write("exit 7\r");
  assert.equal(await code, 7);
}

async function attach() {
  const [stdout, stdin] = [new Sink(), new PassThrough()];
  const socket = await new k8s.Attach(config).attach(namespace, "web", "main", stdout, null, stdin, false);
  await stdout.until("attached");
  stdin.write("javascript\n");
  await stdout.until("heard javascript");
  socket.close();
}

const digest = (path) => createHash("md5").update(readFileSync(path)).digest("hex");

async function copy() {
  const size = 100_000_000;
  writeFileSync(`${directory}-original`, randomBytes(size));
  const want = digest(`${directory}-original`);
  // The end of the input cannot be said in this protocol: the command counts.
  const input = createReadStream(`${directory}-original`, { highWaterMark: 65536 });
  assert.equal(await exec("main", ["sh", "-c", `head -c ${size} >there`], null, new Sink(), input, false), 0);
  assert.equal(digest(`${directory}/there`), want);
  const back = new Sink();
  assert.equal(await exec("main", ["cat", "there"], back, new Sink(), null, false), 0);
  assert.equal(back.hash.digest("hex"), want);
}

async function forward() {
  const forwarder = new k8s.PortForward(config);
  const server = net.createServer((socket) => forwarder.portForward(namespace, "web", [Number(port)], socket, null, socket));
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const answer = [];
  const socket = net.connect(server.address().port, "127.0.0.1");
  socket.write("GET /file HTTP/1.0\r\n\r\n");
  const want = readFileSync(`${directory}/file`);
  let got = 0;
  await within(30, "the file", (async () => {
    for await (const chunk of socket) {
      answer.push(chunk);
      got += chunk.length;
      if (got > want.length && Buffer.concat(answer).includes("\r\n\r\n") &&
        got - Buffer.concat(answer).indexOf("\r\n\r\n") - 4 >= want.length) break;
    }
  })());
  const all = Buffer.concat(answer);
  assert.ok(all.subarray(all.indexOf("\r\n\r\n") + 4).equals(want), "the file is not the same");
  socket.destroy();
  server.close();
}

for (const step of [whoami, objects, watch, logs, commands, terminal, attach, copy, forward]) {
  const start = Date.now();
  await step();
  console.log(`${step.name}: ${((Date.now() - start) / 1000).toFixed(1)} s`);
}
process.exit(0);
