//! Says in the log when the gateway finds no primary, and when it has found one again: its clients only see that they wait.

use crate::client::Host;

/// A primary may be missing for this long, in nanoseconds, before it is said: a new one takes less to be elected.
const PATIENCE_NS: u64 = 3_000_000_000;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Since when there has been no primary.
    missing_since_ns: Option<u64>,
    said: bool,
}

/// What is to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum News {
    Missing,
    Found,
}

impl Presence {
    /// To be called several times a second.
    pub(super) fn on_sweep(&mut self, now_ns: u64, leads: bool, host: &Host) {
        match self.news(now_ns, leads) {
            None => {}
            Some(News::Found) => log::info!("a primary was found: commands are served again"),
            Some(News::Missing) => {
                let troubles = host.troubles();
                let each =
                    troubles.filter_map(|(address, it)| Some(format!("; {address}: {}", it?)));
                let each: String = each.collect();
                log::warn!(
                    "no primary is found: commands wait for their deadline. See `viewstone status`, and whether --addresses \
                     names all replicas{each}"
                );
            }
        }
    }

    fn news(&mut self, now_ns: u64, leads: bool) -> Option<News> {
        if leads {
            self.missing_since_ns = None;
            return std::mem::take(&mut self.said).then_some(News::Found);
        }
        let since_ns = *self.missing_since_ns.get_or_insert(now_ns);
        if self.said || now_ns - since_ns < PATIENCE_NS {
            return None;
        }
        self.said = true;
        Some(News::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_stays_away_is_said_once_and_its_return_too() {
        let mut presence = Presence::default();
        assert_eq!(presence.news(0, false), None);
        assert_eq!(presence.news(1, true), None, "nothing was said");
        assert_eq!(presence.news(2, false), None);
        assert_eq!(presence.news(1 + PATIENCE_NS, false), None);
        assert_eq!(presence.news(2 + PATIENCE_NS, false), Some(News::Missing));
        assert_eq!(presence.news(9 * PATIENCE_NS, false), None, "once");
        assert_eq!(presence.news(9 * PATIENCE_NS, true), Some(News::Found));
        assert_eq!(presence.news(9 * PATIENCE_NS, true), None);
    }
}
