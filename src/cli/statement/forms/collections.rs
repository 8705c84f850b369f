//! The statements about collections.

use super::Form;

const fn form(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    more: &'static [&'static str],
) -> Form {
    Form {
        name,
        usage,
        about,
        more,
        keywords: &[],
        nests: true,
    }
}

const NEW: &str = "The number says whether it is new: 1, or 0. The first one makes the key.";
const GONE: &str =
    "The number says whether it was there: 1, or 0. With the last one the key is gone.";
const PLACES: &str =
    "The first place is 0; negative numbers count from the end: 0 -1 is everything.";
const PART: &str = "What does not fit an answer is left out, and the answer says `more follow`.";

pub(super) const COLLECTIONS: &[Form] = &[
    form(
        "hset",
        "hset KEY FIELD VALUE",
        "set a field of a hash",
        &[NEW],
    ),
    form(
        "hget",
        "hget KEY FIELD",
        "read a field",
        &["The answer is `ok absent` if there is none."],
    ),
    form("hdel", "hdel KEY FIELD", "remove a field", &[GONE]),
    form(
        "hincr",
        "hincr KEY FIELD [N]",
        "add N, or 1, to a field",
        &["As `incr`."],
    ),
    form("hgetall", "hgetall KEY", "fields and values", &[PART]),
    form("sadd", "sadd KEY MEMBER", "add a member to a set", &[NEW]),
    form("srem", "srem KEY MEMBER", "remove a member", &[GONE]),
    form("smembers", "smembers KEY", "members", &[PART]),
    form(
        "lpush",
        "lpush KEY VALUE",
        "add an element before a list",
        &["The number says how many there are. The first one makes the key."],
    ),
    form(
        "rpush",
        "rpush KEY VALUE",
        "add an element behind it",
        &["As `lpush`."],
    ),
    form(
        "lpop",
        "lpop KEY",
        "take its first element",
        &["It must fit the reply to a write. With the last one the key is gone."],
    ),
    form("rpop", "rpop KEY", "take its last element", &["As `lpop`."]),
    form(
        "lrange",
        "lrange KEY FIRST LAST",
        "elements",
        &[PLACES, PART],
    ),
    form(
        "zadd",
        "zadd KEY SCORE MEMBER",
        "give a member of a sorted set a score",
        &[NEW, "A score is any number, also inf or -inf."],
    ),
    form("zrem", "zrem KEY MEMBER", "remove a member", &[GONE]),
    form(
        "zscore",
        "zscore KEY MEMBER",
        "read a score",
        &["The answer is `ok absent` if there is none."],
    ),
    form(
        "zrange",
        "zrange KEY FIRST LAST",
        "members and scores, the least first",
        &[PLACES, PART],
    ),
];
