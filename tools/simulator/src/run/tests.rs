use super::*;
use crate::workload::KvWorkload;

#[test]
fn a_seed_is_one_run() {
    for seed in [1, 2] {
        let first = run::<KvWorkload>(seed, false);
        let second = run::<KvWorkload>(seed, false);
        assert_eq!((first.hash, first.events), (second.hash, second.events));
        assert_eq!(first.to_string(), second.to_string());
    }
    assert_ne!(
        run::<KvWorkload>(1, false).hash,
        run::<KvWorkload>(2, false).hash
    );
}
