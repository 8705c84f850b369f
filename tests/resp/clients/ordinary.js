// What programs in JavaScript do with ioredis: run by tests/resp_tools.rs, with the gateway's port.
const assert = require("node:assert");
const Redis = require("ioredis");

async function main() {
  const db = new Redis({ port: Number(process.argv[2]), connectionName: "ordinary" });
  assert.equal(await db.ping(), "PONG");
  assert.equal(await db.set("name", "value"), "OK");
  assert.equal(await db.get("name"), "value");
  assert.equal(await db.set("name", "other", "NX"), null);
  assert.equal(await db.set("name", "other", "EX", 100, "GET"), "value");
  assert.ok((await db.ttl("name")) > 50);
  assert.equal(await db.incr("n"), 1);
  assert.deepEqual(await db.mget("name", "absent", "n"), ["other", null, "1"]);

  const pipeline = db.pipeline();
  for (let number = 0; number < 500; number++) pipeline.set(`key:${number}`, number);
  const replies = await pipeline.exec();
  assert.ok(replies.length === 500 && replies.every(([error, reply]) => !error && reply === "OK"));

  const found = new Set();
  for await (const keys of db.scanStream({ match: "key:*", count: 100 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 500);

  assert.deepEqual(await db.multi().incr("n").get("n").exec(), [[null, 2], [null, "2"]]);
  const other = new Redis({ port: Number(process.argv[2]) });
  await db.watch("n");
  await other.set("n", 100);
  assert.equal(await db.multi().set("n", 3).exec(), null);
  assert.equal(await db.get("n"), "100");

  const binary = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await db.set("binary", binary);
  assert.ok(binary.equals(await db.getBuffer("binary")));
  await assert.rejects(db.xadd("stream", "*", "f", "v"), /unknown command/);

  assert.equal(await db.hset("hash", { f: 1, g: "two" }), 2);
  assert.deepEqual(await db.hgetall("hash"), { f: "1", g: "two" });
  assert.deepEqual(await db.hmget("hash", "g", "none"), ["two", null]);
  assert.equal(await db.hincrby("hash", "f", 4), 5);
  assert.equal(await db.sadd("set", "a", "b", "c"), 3);
  assert.deepEqual((await db.smembers("set")).sort(), ["a", "b", "c"]);
  assert.equal(await db.sismember("set", "b"), 1);
  assert.equal((await db.spop("set", 5)).length, 3);
  await assert.rejects(db.get("hash"), /WRONGTYPE/);

  // Calls at once, each on its own: they leave together.
  const sums = await Promise.all(Array.from({ length: 1000 }, () => db.incr("sum")));
  assert.deepEqual(sums, Array.from({ length: 1000 }, (_, index) => index + 1));
  await db.flushall();
  assert.equal(await db.dbsize(), 0);
  await Promise.all([db.quit(), other.quit()]);
  console.log("ioredis is content");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
