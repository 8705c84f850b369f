"""What programs in Python do with redis-py: run by tests/resp_tools.rs, with the gateway's port and a version of the protocol."""

import sys
import time

import redis

port, protocol = int(sys.argv[1]), int(sys.argv[2])
db = redis.Redis(port=port, protocol=protocol, client_name="ordinary", decode_responses=True)

assert db.ping() is True
assert db.set("name", "value") is True
assert db.get("name") == "value"
assert db.get("absent") is None
assert db.set("name", "other", nx=True) is None
assert db.set("name", "other", get=True) == "value"
assert db.getdel("name") == "other"
assert db.mset({"a": 1, "b": 2}) is True
assert db.mget("a", "b", "c") == ["1", "2", None]
assert db.incr("n") == 1 and db.incrby("n", 41) == 42 and db.decr("n") == 41
assert db.incrbyfloat("f", 1.5) == 1.5
assert db.append("s", "hello") == 5 and db.strlen("s") == 5
assert db.getrange("s", 1, 3) == "ell" and db.setrange("s", 0, "j") == 5 and db.get("s") == "jello"

binary = bytes(range(256))
raw = redis.Redis(port=port, protocol=protocol)
assert raw.set(b"\x00\xff\r\n", binary) is True and raw.get(b"\x00\xff\r\n") == binary

assert db.expire("a", 100) and 50 <= db.ttl("a") <= 100 and db.persist("a") and db.ttl("a") == -1
assert db.set("short", "1", px=60)
deadline = time.monotonic() + 30
while db.exists("short"):
    assert time.monotonic() < deadline, "it does not expire"
    time.sleep(0.01)

pipe = db.pipeline(transaction=False)
for number in range(500):
    pipe.set(f"key:{number}", number)
assert pipe.execute() == [True] * 500
assert sorted(db.scan_iter("key:*", count=77)) == sorted(f"key:{n}" for n in range(500))
assert len(db.keys("key:1?")) == 10

with db.pipeline(transaction=True) as pipe:
    assert pipe.incr("n").incr("n").get("n").execute() == [42, 43, "43"]

other = redis.Redis(port=port)
with db.pipeline() as pipe:
    pipe.watch("n")
    number = int(pipe.get("n"))
    other.set("n", 100)
    pipe.multi()
    pipe.set("n", number + 1)
    try:
        pipe.execute()
        raise AssertionError("somebody else changed it")
    except redis.WatchError:
        pass
assert db.get("n") == "100"


def double(pipe):
    number = int(pipe.get("n"))
    pipe.multi()
    pipe.set("n", 2 * number)


assert db.transaction(double, "n") == [True]
assert db.get("n") == "200"

assert db.hset("hash", mapping={"f": "1", "g": "two"}) == 2 and db.hset("hash", "f", "3") == 0
assert db.hget("hash", "f") == "3" and db.hgetall("hash") == {"f": "3", "g": "two"}
assert db.hmget("hash", "g", "none") == ["two", None] and sorted(db.hkeys("hash")) == ["f", "g"]
assert db.hincrby("hash", "f", 4) == 7 and db.hincrbyfloat("hash", "f", 0.5) == 7.5
assert dict(db.hscan_iter("hash")) == {"f": "7.5", "g": "two"} and db.hdel("hash", "f", "none") == 1
assert db.sadd("set", "a", "b", "c") == 3 and db.smembers("set") == {"a", "b", "c"}
assert db.sadd("other", "b", "d") == 2 and db.sinter("set", "other") == {"b"} and db.sunion("set", "other") == set("abcd")
assert db.smove("set", "other", "a") and db.sismember("other", "a") and db.smismember("set", ["a", "b"]) == [0, 1]
assert db.srandmember("set") in {"b", "c"} and set(db.sscan_iter("other")) == {"a", "b", "d"}
assert db.spop("set") in {"b", "c"} and len(db.spop("other", 5)) == 3 and db.scard("other") == 0
assert db.type("hash") == "hash" and db.type("set") == "set"
try:
    db.incr("hash")
    raise AssertionError("it is a hash")
except redis.ResponseError as error:
    assert "WRONGTYPE" in str(error) or "wrong kind of value" in str(error), error
try:
    db.execute_command("XADD", "stream", "*", "f", "v")
    raise AssertionError("there are no streams")
except redis.ResponseError as error:
    assert "unknown command" in str(error), error
try:
    db.set("n", "x") and db.incr("n")
    raise AssertionError("it is no number")
except redis.ResponseError as error:
    assert "not an integer" in str(error), error

assert db.client_getname() == "ordinary" and db.client_id() > 0
assert db.info()["redis_mode"] == "standalone" and db.dbsize() > 500
assert db.config_get("maxclients")["maxclients"]
assert db.rename("s", "t") and db.type("t") == "string" and db.delete("t", "s") == 1
assert db.flushall() and db.dbsize() == 0
print("redis-py", redis.__version__, "protocol", protocol, "is content")
