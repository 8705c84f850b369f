//! The table of commands. Arity, flags and positions of keys are those of Redis 7, in its notation: a negative arity is the
//! least number of arguments; positions are first, last (negative: from the end) and step.

use super::{
    Context, Prepared, connection, expiry, hashes, info, keys, lists, numbers, server, sets,
    sorted_sets, strings, transactions,
};
use crate::resp::request::Arguments;

/// A command's function.
type Run = fn(&mut Context<'_>, &Arguments<'_>) -> Prepared;

/// A command.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a column of the table"
)]
pub struct Spec {
    /// Its name, in small letters.
    pub name: &'static str,
    /// How many arguments it takes, its name included; negative: at least so many.
    pub arity: i32,
    /// Its flags, separated by blanks.
    pub flags: &'static str,
    /// Positions of its keys: first, last, step.
    pub keys: (i32, i32, i32),
    /// Its categories, separated by blanks.
    pub categories: &'static str,
    /// Runs only when all commands before it have their replies: it changes what the connection has set.
    pub is_barrier: bool,
    /// Between MULTI and EXEC it runs at once.
    pub is_immediate: bool,
    /// May be part of a transaction.
    pub is_transactional: bool,
    /// In a transaction its items depend on what the commands before it leave.
    pub is_predicted: bool,
    /// Its subcommands, each with the number of arguments, counted as [`Spec::arity`] is.
    pub subcommands: &'static [(&'static str, i32)],
    /// Its function.
    pub run: Run,
}

impl Spec {
    const fn barrier(mut self) -> Self {
        self.is_barrier = true;
        self
    }

    const fn immediate(mut self) -> Self {
        self.is_immediate = true;
        self.is_barrier = true;
        self
    }

    const fn with(mut self, subcommands: &'static [(&'static str, i32)]) -> Self {
        self.subcommands = subcommands;
        self
    }

    const fn single(mut self) -> Self {
        self.is_transactional = false;
        self
    }

    const fn predicted(mut self) -> Self {
        self.is_predicted = true;
        self
    }

    /// Where its keys are among so many arguments.
    pub fn key_positions(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let (first, last, step) = self.keys;
        let size = last.unsigned_abs() as usize;
        let end = match last {
            ..0 => (count + 1).saturating_sub(size),
            0 => 0,
            _ => count.min(size + 1),
        };
        let (first, step) = (first.unsigned_abs() as usize, step.unsigned_abs() as usize);
        (first..end).step_by(step.max(1))
    }

    /// Whether it takes so many arguments.
    pub fn takes(&self, count: usize) -> bool {
        takes(self.arity, count)
    }
}

/// Whether so many arguments are right.
pub(super) fn takes(arity: i32, count: usize) -> bool {
    let least = arity.unsigned_abs() as usize;
    count == least || arity < 0 && count > least
}

const fn spec(
    name: &'static str,
    arity: i32,
    keys: (i32, i32, i32),
    flags: &'static str,
    categories: &'static str,
    run: Run,
) -> Spec {
    Spec {
        name,
        arity,
        flags,
        keys,
        categories,
        is_barrier: false,
        is_immediate: false,
        is_transactional: true,
        is_predicted: false,
        subcommands: &[],
        run,
    }
}

const NO: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const TWO: (i32, i32, i32) = (1, 2, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);

const CLIENT: &[(&str, i32)] = &[
    ("getname", 2),
    ("id", 2),
    ("info", 2),
    ("list", -2),
    ("no-evict", 3),
    ("no-touch", 3),
    ("setinfo", 4),
    ("setname", 3),
];
const COMMAND: &[(&str, i32)] = &[
    ("count", 2),
    ("docs", -2),
    ("getkeys", -4),
    ("info", -2),
    ("list", -2),
];
const CONFIG: &[(&str, i32)] = &[("get", -3), ("resetstat", 2), ("rewrite", 2), ("set", -4)];

const CONTROL: &str = "noscript loading stale fast allow_busy";
const HANDSHAKE: &str = "noscript loading stale fast no_auth allow_busy";

/// All commands, in the order of their names.
#[rustfmt::skip]
pub static TABLE: &[Spec] = &[
    spec("append", 3, ONE, "write denyoom fast", "@write @string @fast", strings::append),
    spec("auth", -2, NO, "noscript loading stale fast no_auth allow_busy", "@fast @connection", connection::auth).barrier(),
    spec("client", -2, NO, "", "@slow", connection::client).barrier().with(CLIENT),
    spec("command", -1, NO, "loading stale", "@slow @connection", server::command).with(COMMAND),
    spec("config", -2, NO, "", "@slow", server::config).with(CONFIG),
    spec("dbsize", 1, NO, "readonly fast", "@keyspace @read @fast", keys::dbsize),
    spec("decr", 2, ONE, "write denyoom fast", "@write @string @fast", numbers::decr),
    spec("decrby", 3, ONE, "write denyoom fast", "@write @string @fast", numbers::decrby),
    spec("del", -2, ALL, "write", "@keyspace @write @slow", keys::del),
    spec("discard", 1, NO, CONTROL, "@fast @transaction", transactions::discard).immediate(),
    spec("echo", 2, NO, "loading stale fast", "@fast @connection", connection::echo),
    spec("exec", 1, NO, "noscript loading stale skip_slowlog", "@slow @transaction", transactions::exec).immediate(),
    spec("exists", -2, ALL, "readonly fast", "@keyspace @read @fast", keys::exists),
    spec("expire", -3, ONE, "write fast", "@keyspace @write @fast", expiry::expire),
    spec("expireat", -3, ONE, "write fast", "@keyspace @write @fast", expiry::expireat),
    spec("expiretime", 2, ONE, "readonly fast", "@keyspace @read @fast", expiry::expiretime),
    spec("flushall", -1, NO, "write", "@keyspace @write @slow @dangerous", keys::flush),
    spec("flushdb", -1, NO, "write", "@keyspace @write @slow @dangerous", keys::flush),
    spec("get", 2, ONE, "readonly fast", "@read @string @fast", strings::get),
    spec("getdel", 2, ONE, "write fast", "@write @string @fast", strings::getdel),
    spec("getex", -2, ONE, "write fast", "@write @string @fast", strings::getex),
    spec("getrange", 4, ONE, "readonly", "@read @string @slow", strings::getrange),
    spec("getset", 3, ONE, "write denyoom fast", "@write @string @fast", strings::getset),
    spec("hdel", -3, ONE, "write fast", "@write @hash @fast", hashes::hdel),
    spec("hello", -1, NO, HANDSHAKE, "@fast @connection", connection::hello).barrier(),
    spec("hexists", 3, ONE, "readonly fast", "@read @hash @fast", hashes::hexists),
    spec("hget", 3, ONE, "readonly fast", "@read @hash @fast", hashes::hget),
    spec("hgetall", 2, ONE, "readonly", "@read @hash @slow", hashes::hgetall),
    spec("hincrby", 4, ONE, "write denyoom fast", "@write @hash @fast", hashes::hincrby),
    spec("hincrbyfloat", 4, ONE, "write denyoom fast", "@write @hash @fast", hashes::hincrbyfloat).single(),
    spec("hkeys", 2, ONE, "readonly", "@read @hash @slow", hashes::hkeys),
    spec("hlen", 2, ONE, "readonly fast", "@read @hash @fast", hashes::hlen),
    spec("hmget", -3, ONE, "readonly fast", "@read @hash @fast", hashes::hmget),
    spec("hmset", -4, ONE, "write denyoom fast", "@write @hash @fast", hashes::hmset),
    spec("hrandfield", -2, ONE, "readonly", "@read @hash @slow", hashes::hrandfield),
    spec("hscan", -3, ONE, "readonly", "@read @hash @slow", hashes::hscan).single(),
    spec("hset", -4, ONE, "write denyoom fast", "@write @hash @fast", hashes::hset),
    spec("hsetnx", 4, ONE, "write denyoom fast", "@write @hash @fast", hashes::hsetnx),
    spec("hstrlen", 3, ONE, "readonly fast", "@read @hash @fast", hashes::hstrlen),
    spec("hvals", 2, ONE, "readonly", "@read @hash @slow", hashes::hvals),
    spec("incr", 2, ONE, "write denyoom fast", "@write @string @fast", numbers::incr),
    spec("incrby", 3, ONE, "write denyoom fast", "@write @string @fast", numbers::incrby),
    spec("incrbyfloat", 3, ONE, "write denyoom fast", "@write @string @fast", numbers::incrbyfloat).predicted(),
    spec("info", -1, NO, "loading stale", "@slow @dangerous", info::info),
    spec("keys", 2, NO, "readonly", "@keyspace @read @slow @dangerous", keys::keys).single(),
    spec("lindex", 3, ONE, "readonly", "@read @list @slow", lists::lindex),
    spec("llen", 2, ONE, "readonly fast", "@read @list @fast", lists::llen),
    spec("lmove", 5, TWO, "write denyoom", "@write @list @slow", lists::lmove),
    spec("lpop", -2, ONE, "write fast", "@write @list @fast", lists::lpop),
    spec("lpush", -3, ONE, "write denyoom fast", "@write @list @fast", lists::lpush),
    spec("lpushx", -3, ONE, "write denyoom fast", "@write @list @fast", lists::lpushx),
    spec("lrange", 4, ONE, "readonly", "@read @list @slow", lists::lrange),
    spec("lset", 4, ONE, "write denyoom", "@write @list @slow", lists::lset),
    spec("ltrim", 4, ONE, "write", "@write @list @slow", lists::ltrim),
    spec("mget", -2, ALL, "readonly fast", "@read @string @fast", strings::mget),
    spec("mset", -3, PAIRS, "write denyoom", "@write @string @slow", strings::mset),
    spec("msetnx", -3, PAIRS, "write denyoom", "@write @string @slow", strings::msetnx).predicted(),
    spec("multi", 1, NO, CONTROL, "@fast @transaction", transactions::multi).immediate(),
    spec("persist", 2, ONE, "write fast", "@keyspace @write @fast", expiry::persist),
    spec("pexpire", -3, ONE, "write fast", "@keyspace @write @fast", expiry::pexpire),
    spec("pexpireat", -3, ONE, "write fast", "@keyspace @write @fast", expiry::pexpireat),
    spec("pexpiretime", 2, ONE, "readonly fast", "@keyspace @read @fast", expiry::pexpiretime),
    spec("ping", -1, NO, "fast", "@fast @connection", connection::ping),
    spec("psetex", 4, ONE, "write denyoom", "@write @string @slow", strings::psetex),
    spec("pttl", 2, ONE, "readonly fast", "@keyspace @read @fast", expiry::pttl),
    spec("quit", -1, NO, HANDSHAKE, "@fast @connection", connection::quit).immediate(),
    spec("randomkey", 1, NO, "readonly", "@keyspace @read @slow", keys::randomkey).single(),
    spec("rename", 3, TWO, "write", "@keyspace @write @slow", keys::rename),
    spec("renamenx", 3, TWO, "write fast", "@keyspace @write @fast", keys::renamenx),
    spec("reset", 1, NO, HANDSHAKE, "@fast @connection", connection::reset).immediate(),
    spec("rpop", -2, ONE, "write fast", "@write @list @fast", lists::rpop),
    spec("rpoplpush", 3, TWO, "write denyoom", "@write @list @slow", lists::rpoplpush),
    spec("rpush", -3, ONE, "write denyoom fast", "@write @list @fast", lists::rpush),
    spec("rpushx", -3, ONE, "write denyoom fast", "@write @list @fast", lists::rpushx),
    spec("sadd", -3, ONE, "write denyoom fast", "@write @set @fast", sets::sadd),
    spec("scan", -2, NO, "readonly", "@keyspace @read @slow", keys::scan).single(),
    spec("scard", 2, ONE, "readonly fast", "@read @set @fast", sets::scard),
    spec("sdiff", -2, ALL, "readonly", "@read @set @slow", sets::sdiff),
    spec("select", 2, NO, "loading stale fast", "@fast @connection", connection::select),
    spec("set", -3, ONE, "write denyoom", "@write @string @slow", strings::set),
    spec("setex", 4, ONE, "write denyoom", "@write @string @slow", strings::setex),
    spec("setnx", 3, ONE, "write denyoom fast", "@write @string @fast", strings::setnx),
    spec("setrange", 4, ONE, "write denyoom", "@write @string @slow", strings::setrange),
    spec("sinter", -2, ALL, "readonly", "@read @set @slow", sets::sinter),
    spec("sintercard", -3, NO, "readonly movablekeys", "@read @set @slow", sets::sintercard),
    spec("sismember", 3, ONE, "readonly fast", "@read @set @fast", sets::sismember),
    spec("smembers", 2, ONE, "readonly", "@read @set @slow", sets::smembers),
    spec("smismember", -3, ONE, "readonly fast", "@read @set @fast", sets::smismember),
    spec("smove", 4, TWO, "write fast", "@write @set @fast", sets::smove).single(),
    spec("spop", -2, ONE, "write fast", "@write @set @fast", sets::spop),
    spec("srandmember", -2, ONE, "readonly", "@read @set @slow", sets::srandmember),
    spec("srem", -3, ONE, "write fast", "@write @set @fast", sets::srem),
    spec("sscan", -3, ONE, "readonly", "@read @set @slow", sets::sscan).single(),
    spec("strlen", 2, ONE, "readonly fast", "@read @string @fast", strings::strlen),
    spec("substr", 4, ONE, "readonly", "@read @string @slow", strings::getrange),
    spec("sunion", -2, ALL, "readonly", "@read @set @slow", sets::sunion),
    spec("time", 1, NO, "loading stale fast", "@fast", server::time),
    spec("touch", -2, ALL, "readonly fast", "@keyspace @read @fast", keys::exists),
    spec("ttl", 2, ONE, "readonly fast", "@keyspace @read @fast", expiry::ttl),
    spec("type", 2, ONE, "readonly fast", "@keyspace @read @fast", keys::kind),
    spec("unlink", -2, ALL, "write fast", "@keyspace @write @fast", keys::del),
    spec("unwatch", 1, NO, CONTROL, "@fast @transaction", transactions::unwatch).barrier(),
    spec("wait", 3, NO, "noscript", "@slow @connection", server::wait).barrier(),
    spec("watch", -2, ALL, CONTROL, "@fast @transaction", transactions::watch).immediate(),
    spec("zadd", -4, ONE, "write denyoom fast", "@write @sortedset @fast", sorted_sets::zadd),
    spec("zcard", 2, ONE, "readonly fast", "@read @sortedset @fast", sorted_sets::zcard),
    spec("zcount", 4, ONE, "readonly fast", "@read @sortedset @fast", sorted_sets::zcount),
    spec("zincrby", 4, ONE, "write denyoom fast", "@write @sortedset @fast", sorted_sets::zincrby),
    spec("zmscore", -3, ONE, "readonly fast", "@read @sortedset @fast", sorted_sets::zmscore),
    spec("zpopmax", -2, ONE, "write fast", "@write @sortedset @fast", sorted_sets::zpopmax),
    spec("zpopmin", -2, ONE, "write fast", "@write @sortedset @fast", sorted_sets::zpopmin),
    spec("zrandmember", -2, ONE, "readonly", "@read @sortedset @slow", sorted_sets::zrandmember),
    spec("zrange", -4, ONE, "readonly", "@read @sortedset @slow", sorted_sets::zrange),
    spec("zrangebyscore", -4, ONE, "readonly", "@read @sortedset @slow", sorted_sets::zrangebyscore),
    spec("zrank", 3, ONE, "readonly fast", "@read @sortedset @fast", sorted_sets::zrank),
    spec("zrem", -3, ONE, "write fast", "@write @sortedset @fast", sorted_sets::zrem),
    spec("zremrangebyrank", 4, ONE, "write", "@write @sortedset @slow", sorted_sets::zremrangebyrank).single(),
    spec("zremrangebyscore", 4, ONE, "write", "@write @sortedset @slow", sorted_sets::zremrangebyscore).single(),
    spec("zrevrange", -4, ONE, "readonly", "@read @sortedset @slow", sorted_sets::zrevrange),
    spec("zrevrangebyscore", -4, ONE, "readonly", "@read @sortedset @slow", sorted_sets::zrevrangebyscore),
    spec("zrevrank", 3, ONE, "readonly fast", "@read @sortedset @fast", sorted_sets::zrevrank),
    spec("zscan", -3, ONE, "readonly", "@read @sortedset @slow", sorted_sets::zscan).single(),
    spec("zscore", 3, ONE, "readonly fast", "@read @sortedset @fast", sorted_sets::zscore),
];

/// Longest name.
const NAME_SIZE_MAX: usize = 16;

/// The command of this name, in letters of any size.
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > NAME_SIZE_MAX {
        return None;
    }
    let mut small = [0; NAME_SIZE_MAX];
    let small = &mut small[..name.len()];
    small.copy_from_slice(name);
    small.make_ascii_lowercase();
    let index = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(small));
    index.ok().map(|index| &TABLE[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_found_by_its_name() {
        for spec in TABLE {
            let found = find(spec.name.to_uppercase().as_bytes()).expect("it is in the table");
            assert_eq!(found.name, spec.name);
        }
        for name in ["", "ge", "gets", "hfoo", "a-name-that-is-much-too-long"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let positions = |name: &str, count| -> Vec<usize> {
            let spec = find(name.as_bytes()).expect("known");
            spec.key_positions(count).collect()
        };
        assert_eq!(positions("get", 2), [1]);
        assert_eq!(positions("rename", 3), [1, 2]);
        assert_eq!(positions("del", 4), [1, 2, 3]);
        assert_eq!(positions("msetnx", 5), [1, 3]);
        assert_eq!(positions("msetnx", 1), [0; 0]);
        assert_eq!(positions("ping", 2), [0; 0]);
    }

    #[test]
    fn arity_is_exact_or_least() {
        let get = find(b"get").expect("known");
        assert!(get.takes(2) && !get.takes(1) && !get.takes(3));
        let set = find(b"set").expect("known");
        assert!(set.takes(3) && set.takes(9) && !set.takes(2));
    }
}
