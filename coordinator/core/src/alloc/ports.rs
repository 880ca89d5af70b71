//! Choice of host ports: drawn by a seed, so that a port is not given to the next task right after
//! its last one ended (clients may still hold its address).

use std::collections::{BTreeSet, VecDeque};

use gantry_wire::resources::PortRanges;

/// Ports of an agent that are remembered after they became free.
const RECENT_MAX: usize = 64;

/// Ports that became free lately.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<u16>);

impl Recent {
    pub(super) fn push(&mut self, port: u16) {
        if self.0.len() == RECENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(port);
    }

    fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

/// splitmix64 (Steele, Lea, Flood 2014): enough to spread, nothing secret depends on it.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One port for each wanted, in order. Fewer when there are not enough, which the caller excluded.
pub(super) fn choose(
    all: &PortRanges,
    used: &BTreeSet<u16>,
    recent: &Recent,
    wanted: &[Option<u16>],
    mut seed: u64,
) -> Vec<u16> {
    let mut taken: BTreeSet<u16> = wanted.iter().flatten().copied().collect();
    let mut chosen = Vec::with_capacity(wanted.len());
    for want in wanted {
        let port = match want {
            Some(port) => Some(*port),
            None => {
                let start = next(&mut seed);
                let free = |p: u16| !used.contains(&p) && !taken.contains(&p);
                find(all, start, |p| free(p) && !recent.contains(p))
                    .or_else(|| find(all, start, free))
            }
        };
        taken.extend(port);
        chosen.extend(port);
    }
    chosen
}

/// The first port that pleases, from a place that `start` says, once around.
fn find(all: &PortRanges, start: u64, pleases: impl Fn(u16) -> bool) -> Option<u16> {
    let count = all.len();
    if count == 0 {
        return None;
    }
    let skip = usize::try_from(start % count as u64).unwrap_or(0);
    let ports = || all.ranges().iter().flat_map(|r| r.begin..=r.end);
    ports()
        .skip(skip)
        .chain(ports().take(skip))
        .find(|p| pleases(*p))
}
