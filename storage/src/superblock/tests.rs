//! The decision alone; the power cuts are in [`cuts`].

mod cuts;

use super::*;
use crate::layout::SUPERBLOCK_COPIES;
use proptest::prelude::*;

const CLUSTER: u128 = 0xc1;
const FILE: u128 = 0xf1;

/// From this view on, superblocks have one header, so that the combinations of torn sectors stay few.
const SMALL_VIEWS: u32 = 1000;

/// A superblock whose headers and size follow from its view.
fn content(sequence: u64, view: u32) -> Content {
    let file = FileId::of_random(FILE);
    let mut content = Content::initial(CLUSTER, file, 1, 3, Geometry::SMALL);
    content.state.start = Start::Begun as u8;
    content.state.sequence = sequence;
    content.state.view = view;
    content.view_headers = headers(view);
    content
}

fn headers(view: u32) -> ViewHeaders {
    let sizes = if view < SMALL_VIEWS { 3 } else { 1 };
    let count = 1 + u64::from(view) % sizes * 8; // 1, 9 or 17: one sector or two
    let list: Vec<_> = (0..count)
        .map(|op| Prepare::reserved_slot(CLUSTER, op + u64::from(view)))
        .collect();
    ViewHeaders::new(&list)
}

fn copy_of(content: &Content, copy: usize) -> Vec<u8> {
    let mut bytes = vec![0; COPY_SIZE_MAX];
    content.clone().seal(copy, &mut bytes);
    bytes
}

fn decide_on(copies: &[Vec<u8>; SUPERBLOCK_COPIES]) -> Result<Decision, OpenError> {
    decide(copies.each_ref().map(Vec::as_slice))
}

#[test]
fn the_newest_valid_copy_wins_whatever_the_others_are() {
    let (old, new) = (content(7, 2), content(8, 5));
    let variants = |copy: usize| {
        let (old, new) = (copy_of(&old, copy), copy_of(&new, copy));
        let mut torn = new.clone();
        torn[2 * SECTOR_SIZE..].copy_from_slice(&old[2 * SECTOR_SIZE..]);
        let mut garbage = old.clone();
        garbage[100] ^= 1;
        [old, new, torn, garbage, vec![0; COPY_SIZE_MAX]]
    };
    for choice in 0..5_usize.pow(4) {
        let kinds: [usize; 4] = std::array::from_fn(|copy| choice / 5_usize.pow(copy as u32) % 5);
        let copies = std::array::from_fn(|copy| variants(copy)[kinds[copy]].clone());
        let decision = decide_on(&copies);
        let expected = if kinds.contains(&1) {
            &new
        } else if kinds.contains(&0) {
            &old
        } else {
            let all_zero = kinds.iter().all(|&kind| kind == 4);
            let error = decision.expect_err("no copy is valid");
            assert_eq!(error == OpenError::NotFormatted, all_zero, "{kinds:?}");
            assert!(error.to_string().contains("recover"));
            continue;
        };
        let decision = decision.expect("one copy is valid");
        assert_eq!(decision.content.state.sequence, expected.state.sequence);
        assert_eq!(decision.content.view_headers, expected.view_headers);
        for (copy, &kind) in kinds.iter().enumerate() {
            let newest = kind == usize::from(expected.state.sequence == 8);
            assert_eq!(decision.is_stale(copy), !newest, "{kinds:?}");
            assert!(!decision.is_astray(copy));
        }
    }
}

#[test]
fn two_contents_of_one_sequence_are_refused() {
    let copies = [(7, 2), (8, 3), (8, 4), (7, 2)];
    let copies =
        std::array::from_fn(|copy| copy_of(&content(copies[copy].0, copies[copy].1), copy));
    let error = decide_on(&copies).expect_err("a fork");
    assert!(matches!(error, OpenError::Fork { sequence: 8, .. }));
    assert!(error.to_string().contains("recover"));
}

#[test]
fn copies_of_one_superblock_have_one_identity_and_a_stray_one_counts() {
    let written = content(3, 1);
    let sums: Vec<_> = (0..SUPERBLOCK_COPIES)
        .map(|copy| copy_of(&written, copy)[..16].to_vec())
        .collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]));
    let mut copies = std::array::from_fn(|_| vec![0; COPY_SIZE_MAX]);
    copies[3] = copy_of(&written, 0);
    let decision = decide_on(&copies).expect("one valid copy");
    assert_eq!(decision.content.state.sequence, 3);
    assert!(decision.is_astray(3) && !decision.is_stale(3));
}

#[test]
fn files_that_are_no_data_file_are_told_apart() {
    let all = |bytes: Vec<u8>| decide_on(&std::array::from_fn(|_| bytes.clone()));
    assert_eq!(all(vec![]), Err(OpenError::NotFormatted));
    assert_eq!(all(vec![0; COPY_SIZE_MAX]), Err(OpenError::NotFormatted));
    assert_eq!(all(vec![7; COPY_SIZE_MAX]), Err(OpenError::NotADataFile));
    assert_eq!(all(vec![7; 5]), Err(OpenError::NotADataFile));
    let written = copy_of(&content(1, 0), 0);
    assert!(all(written[..2 * SECTOR_SIZE].to_vec()).is_ok());
    for end in [32, SECTOR_SIZE, 2 * SECTOR_SIZE - 1] {
        let error = all(written[..end].to_vec()).expect_err("cut within every copy");
        assert!(matches!(error, OpenError::Damaged { .. }));
    }
    let mut future = copy_of(&content(1, 0), 0);
    future[18] = 9;
    assert_eq!(all(future), Err(OpenError::Version { found: 9 }));
    let mut odd = content(1, 0);
    odd.state.replica = 3;
    let damaged = all(copy_of(&odd, 0)).expect_err("replica 3 of 3");
    assert!(
        damaged.to_string().contains("its replica index"),
        "{damaged}"
    );
}

#[test]
fn what_the_opener_expects_is_compared() {
    let state = content(1, 0).state;
    let check = |expected: Expected| expected.check(&state).map_err(|error| error.to_string());
    assert_eq!(check(Expected::default()), Ok(()));
    let all = Expected {
        cluster: Some(CLUSTER),
        replica: Some(1),
        replica_count: Some(3),
        geometry: Some(Geometry {
            journal_ack: 1,
            ..Geometry::SMALL
        }),
    };
    assert_eq!(check(all), Ok(()));
    let fails = |change: &dyn Fn(&mut Expected), word: &str| {
        let mut expected = all;
        change(&mut expected);
        let error = check(expected).expect_err("a mismatch");
        assert!(error.contains(word), "{error}");
    };
    fails(
        &|e| e.cluster = Some(0xc2),
        "0x000000000000000000000000000000c2",
    );
    fails(&|e| e.replica = Some(2), "replica 1, not to replica 2");
    fails(&|e| e.replica_count = Some(5), "3 replicas, not for 5");
    fails(&|e| e.geometry = Some(Geometry::LARGE), "geometry");
}

#[test]
fn the_format_on_disk_never_changes() {
    let mut first = content(1, 0);
    let mut bytes = vec![0; COPY_SIZE_MAX];
    assert_eq!(first.seal(2, &mut bytes), 2 * SECTOR_SIZE);
    assert_eq!(&bytes[16..32], b"\x02\0\x02\0viewstone\r\n\0");
    assert_eq!(
        u64::from_le_bytes(bytes[64..72].try_into().expect("8 bytes")),
        1
    );
    assert_eq!(first.state.checksum, GOLDEN_CHECKSUM);
    assert_eq!(VIEW_HEADERS_MAX, 97);
    assert_eq!(COPY_SIZE_MAX, 8 * SECTOR_SIZE);
}

const GOLDEN_CHECKSUM: u128 = 0xf3c3_165f_fad7_6af7_7574_6bdc_4b0e_41e8;

#[test]
#[should_panic(expected = "a file has one name")]
fn a_file_keeps_its_name() {
    let before = content(1, 0).state;
    let mut after = before;
    after.file ^= 1;
    after.assert_follows(&before);
}

#[test]
fn what_has_not_begun_holds_nothing() {
    let good = |change: &dyn Fn(&mut SuperblockState)| {
        let mut content = content(1, 0);
        content.state.start = Start::Initialised as u8;
        change(&mut content.state);
        let copies = std::array::from_fn(|copy| copy_of(&content, copy));
        decide_on(&copies).is_ok()
    };
    assert!(good(&|_| ()));
    assert!(!good(&|state| state.file = 0));
    assert!(!good(&|state| state.view = 1));
    assert!(!good(&|state| state.commit_max = 1));
    assert!(!good(&|state| state.sync.syncing = 1));
    assert!(good(&|state| {
        state.start = Start::Begun as u8;
        state.view = 1;
    }));
}

/// How a file that replaces a lost one may become one of many.
#[test]
fn a_recovered_file_begins_in_a_later_view_or_not_at_all() {
    let before = {
        let file = FileId::of_random(FILE);
        let mut state = SuperblockState::initial(CLUSTER, file, 1, 3, Geometry::SMALL);
        state.sync.recovering = 1;
        state
    };
    let follows = |view: u32, start: Start| {
        let mut after = before;
        (after.view, after.sync.recovering) = (view, 0);
        after.set_start(start);
        std::panic::catch_unwind(|| after.assert_follows(&before)).is_ok()
    };
    assert!(follows(6, Start::Begun));
    assert!(!follows(0, Start::Begun));
    assert!(!follows(0, Start::Initialised));
}

proptest! {
    #[test]
    fn deciding_on_any_bytes_never_panics(
        copies in proptest::array::uniform4(proptest::collection::vec(any::<u8>(), 0..64)),
        length in 0..=COPY_SIZE_MAX,
        flips in proptest::collection::vec((0..4_usize, 0..3 * SECTOR_SIZE, any::<u8>()), 0..6),
    ) {
        // Valid copies, overlaid with noise at the front, cut, and with single bytes flipped.
        let written = content(4, 5);
        let mut bytes: [Vec<u8>; 4] = std::array::from_fn(|copy| copy_of(&written, copy));
        for (copy, noise) in copies.iter().enumerate() {
            bytes[copy][..noise.len()].copy_from_slice(noise);
        }
        bytes[0].truncate(length);
        for (copy, at, flip) in flips {
            if let Some(byte) = bytes[copy].get_mut(at) {
                *byte ^= flip;
            }
        }
        if let Ok(decision) = decide_on(&bytes) {
            prop_assert_eq!(decision.content.view_headers, written.view_headers);
        }
    }

    #[test]
    fn a_flipped_byte_anywhere_but_in_the_copy_index_is_noticed(
        at in 0..2 * SECTOR_SIZE,
        flip in 1..=255_u8,
    ) {
        let mut bytes = copy_of(&content(4, 0), 0);
        bytes[at] ^= flip;
        let mut copies = std::array::from_fn(|_| vec![0; COPY_SIZE_MAX]);
        copies[0] = bytes;
        prop_assert_eq!(decide_on(&copies).is_ok(), (16..18).contains(&at));
    }
}
