//! Shapes of network partitions: which replica hears which.

use crate::prng::Prng;
use storage::layout::REPLICAS_MAX;

/// How a network falls apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One replica alone; its clients still reach it.
    Isolated,
    /// One replica that hears nobody, and is heard.
    Deaf,
    /// One replica that hears all, and is not heard.
    Mute,
    /// Two parts, the primary in the larger one.
    Majority,
    /// Two parts, the primary in the smaller one.
    Minority,
    /// Two parts, drawn by lot.
    Split,
    /// Two parts, and one replica that is connected with both.
    Bridge,
    /// Each replica is connected with two neighbours.
    Ring,
    /// Each replica alone.
    Shattered,
    /// Each direction of each link, drawn by lot.
    Links,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 10] = [
        Self::Isolated,
        Self::Deaf,
        Self::Mute,
        Self::Majority,
        Self::Minority,
        Self::Split,
        Self::Bridge,
        Self::Ring,
        Self::Shattered,
        Self::Links,
    ];
}

/// `cuts[from][to]`: the link from one replica to another is cut.
pub type Cuts = [[bool; REPLICAS_MAX]; REPLICAS_MAX];

/// Draws a partition of a shape among `count` replicas. Shapes that need one replica, or sides, mind the primary.
pub fn draw(shape: Shape, count: u8, primary: Option<u8>, prng: &mut Prng) -> Cuts {
    let count = usize::from(count);
    let mut order: Vec<usize> = (0..count).collect();
    prng.shuffle(&mut order);
    let chosen = match primary {
        Some(primary) if prng.coin() => usize::from(primary),
        _ => order[0],
    };
    let primary = primary.map_or(order[0], usize::from);
    let place = |replica: usize| {
        let found = order.iter().position(|&other| other == replica);
        found.expect("the order has all replicas")
    };
    let minority = (count - 1) / 2;
    let mut lots = || prng.coin();
    match shape {
        Shape::Isolated => cuts(count, |from, to| from == chosen || to == chosen),
        Shape::Deaf => cuts(count, |_, to| to == chosen),
        Shape::Mute => cuts(count, |from, _| from == chosen),
        Shape::Majority | Shape::Minority => {
            let others: Vec<usize> = order.into_iter().filter(|&it| it != primary).collect();
            let with_primary = if shape == Shape::Majority {
                count - minority - 1
            } else {
                minority.saturating_sub(1)
            };
            let side = |it: usize| it == primary || others[..with_primary].contains(&it);
            cuts(count, |from, to| side(from) != side(to))
        }
        Shape::Split => {
            let sides: Vec<bool> = (0..count).map(|_| lots()).collect();
            cuts(count, |from, to| sides[from] != sides[to])
        }
        Shape::Bridge => {
            let side = |it: usize| place(it) <= count / 2;
            let bridge = order[0];
            cuts(count, |from, to| {
                side(from) != side(to) && from != bridge && to != bridge
            })
        }
        Shape::Ring => cuts(count, |from, to| {
            let apart = place(from).abs_diff(place(to));
            apart != 1 && apart != count - 1
        }),
        Shape::Shattered => cuts(count, |_, _| true),
        Shape::Links => cuts(count, |_, _| lots()),
    }
}

fn cuts(count: usize, mut cut: impl FnMut(usize, usize) -> bool) -> Cuts {
    let mut cuts = Cuts::default();
    for (from, row) in cuts.iter_mut().enumerate().take(count) {
        for (to, link) in row.iter_mut().enumerate().take(count) {
            *link = from != to && cut(from, to);
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many others each replica hears, and is heard by.
    fn degrees(cuts: &Cuts, count: usize) -> Vec<(usize, usize)> {
        let others = |it: usize| (0..count).filter(move |&other| other != it);
        (0..count)
            .map(|it| {
                let hears = others(it).filter(|&other| !cuts[other][it]).count();
                let heard = others(it).filter(|&other| !cuts[it][other]).count();
                (hears, heard)
            })
            .collect()
    }

    #[test]
    fn each_shape_is_what_it_is_called() {
        for seed in 0..50 {
            let mut prng = Prng::new(seed);
            let mut of = |shape| degrees(&draw(shape, 5, Some(2), &mut prng), 5);
            let count = |degrees: &[(usize, usize)], wanted| {
                degrees.iter().filter(|&&it| it == wanted).count()
            };
            assert_eq!(count(&of(Shape::Isolated), (0, 0)), 1);
            assert_eq!(count(&of(Shape::Deaf), (0, 4)), 1);
            assert_eq!(count(&of(Shape::Mute), (4, 0)), 1);
            let (majority, minority) = (of(Shape::Majority), of(Shape::Minority));
            assert_eq!((majority[2], count(&majority, (1, 1))), ((2, 2), 2));
            assert_eq!((minority[2], count(&minority, (2, 2))), ((1, 1), 3));
            assert_eq!(count(&of(Shape::Bridge), (4, 4)), 1);
            assert_eq!(count(&of(Shape::Ring), (2, 2)), 5);
            assert_eq!(count(&of(Shape::Shattered), (0, 0)), 5);
        }
    }

    #[test]
    fn two_replicas_can_be_parted_too() {
        for shape in Shape::ALL {
            let cuts = draw(shape, 2, Some(0), &mut Prng::new(3));
            assert!((2..REPLICAS_MAX).all(|it| !cuts[0][it] && !cuts[it][0]));
        }
    }
}
