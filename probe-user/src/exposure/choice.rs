//! Which source port the kernel picks, as a probability per port.
//!
//! The kernel draws a starting point in the range and takes the first port from there on that can be used, in steps of
//! two: connect() on an unbound socket first tries the ports with the parity of the low end (`__inet_hash_connect`,
//! net/ipv4/inet_hashtables.c, since 4.5), bind() to port 0 those with the other one (`inet_csk_find_open_port`,
//! net/ipv4/inet_connection_sock.c). A port behind a gap of ports that cannot be used is therefore picked more often
//! than others: once for its own starting point and once for each of the gap.

use crate::node::port_ranges::PortRanges;
use crate::node::sysctl::EphemeralRange;

/// How a program gets its source port from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// connect() on a socket that was not bound, or bound with IP_BIND_ADDRESS_NO_PORT.
    Connect,
    /// bind() to port 0, then connect().
    BindZero,
    /// The same with SO_REUSEADDR: the lower half of the range is tried first.
    BindZeroReuse,
    /// connect() on a socket with IP_LOCAL_PORT_RANGE, from kernel 6.8 on: both parities alike, in the range given.
    OwnRange,
}

/// How many starting points lead to which port.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Probability by port; ports that cannot be picked are absent. Sorted by port.
    chances: Vec<(u16, f64)>,
    /// How many starting points there are.
    starts: u32,
}

impl Choice {
    /// Where `way` leads in `range` if the ports in `unusable` are skipped: reserved ones; bound ones (listeners);
    /// those in use towards the same destination. All starting points are taken as equally likely.
    pub fn of(way: Way, range: EphemeralRange, unusable: &PortRanges) -> Self {
        let taken = Taken::new(unusable);
        let mut by_port = vec![0.0_f64; 1 << 16];
        let mut starts = 0;
        let mut left = 1.0;
        for draw in Scan::draws(way, range) {
            let Some(first) = draw.first().filter(|_| left > 0.0) else { break };
            starts = starts.max(first.starts);
            let mut mass = vec![left / f64::from(first.starts); first.starts as usize];
            for scan in draw {
                scan.spread(&taken, &mut mass, &mut by_port);
            }
            left = mass.iter().sum();
        }
        let chances = (0..=u16::MAX).zip(by_port).filter(|(_, chance)| *chance > 0.0).collect();
        Self { chances, starts }
    }

    /// Probability that one of `ports` is picked.
    pub fn chance(&self, ports: &PortRanges) -> f64 {
        self.chances.iter().filter(|(port, _)| ports.contains(*port)).map(|(_, chance)| chance).sum()
    }

    /// Those of `ports` that can be picked at all.
    pub fn reachable(&self, ports: &PortRanges) -> PortRanges {
        self.chances.iter().map(|(port, _)| *port).filter(|port| ports.contains(*port)).collect()
    }

    /// Starting points of the search: the denominator of every chance, as long as one parity has a usable port.
    pub const fn starts(&self) -> u32 {
        self.starts
    }
}

/// One bit per port.
struct Taken(Vec<bool>);

impl Taken {
    fn new(ports: &PortRanges) -> Self {
        let mut bits = vec![false; 1 << 16];
        for &(first, last) in ports.ranges() {
            if let Some(part) = bits.get_mut(usize::from(first)..=usize::from(last)) {
                part.fill(true);
            }
        }
        Self(bits)
    }

    /// A port above 65535 cannot be used either.
    fn is_free(&self, port: u32) -> bool {
        self.0.get(port as usize).is_some_and(|taken| !taken)
    }
}

/// One pass of the kernel over the range, or over half of it, in fixed steps.
#[derive(Clone, Copy, Debug)]
struct Scan {
    low: u32,
    /// Exclusive.
    high: u32,
    /// First port of the pass, from `low`.
    first: u32,
    step: u32,
    /// How many starting points; as many ports are looked at.
    starts: u32,
}

impl Scan {
    /// For each draw of a starting point, in the order in which the kernel makes them, the passes that follow it.
    fn draws(way: Way, range: EphemeralRange) -> Vec<Vec<Self>> {
        let (low, high) = (u32::from(range.first), u32::from(range.last) + 1);
        let size = high.saturating_sub(low);
        let bind = |low, high| vec![Self::parity(low, high, 1), Self::parity(low, high, 0)];
        match way {
            Way::Connect => vec![vec![Self::parity(low, high, 0), Self::parity(low, high, 1)]],
            Way::OwnRange => vec![vec![Self { low, high, first: 0, step: 1, starts: size }]],
            Way::BindZeroReuse if size >= 4 => {
                let half = low + ((size >> 2) << 1);
                vec![bind(low, half), bind(half, high)]
            }
            Way::BindZero | Way::BindZeroReuse => vec![bind(low, high)],
        }
    }

    fn parity(low: u32, high: u32, first: u32) -> Self {
        let starts = ((high - low) / 2).max(1);
        // A range of one port has no other parity: the kernel looks at that port again.
        let first = if high - low == 1 { 0 } else { first };
        Self { low, high, first, step: 2, starts }
    }

    /// Gives the mass of each starting point to the port that it leads to; where it leads to none, it stays.
    fn spread(&self, taken: &Taken, mass: &mut [f64], by_port: &mut [f64]) {
        // From the highest starting point down: each leads where the next one leads, unless it is usable itself.
        let mut ahead = self.walk(taken);
        let beyond = self.low + self.first + self.starts * self.step;
        for (start, mass) in (0..self.starts).zip(mass).rev() {
            let port = self.low + self.first + start * self.step;
            if taken.is_free(port) {
                ahead = Some(port);
            }
            // The lowest starting point does not come to the odd port at the top: it has looked at enough by then.
            let reached = ahead.filter(|port| start > 0 || *port < beyond);
            if let Some(chance) = reached.and_then(|port| by_port.get_mut(port as usize)) {
                *chance += std::mem::take(mass);
            }
        }
    }

    /// The first usable port from the highest starting point on.
    fn walk(&self, taken: &Taken) -> Option<u32> {
        let mut port = self.low + self.first + self.starts.saturating_sub(1) * self.step;
        for _ in 0..self.starts {
            if taken.is_free(port) {
                return Some(port);
            }
            port += self.step;
            if port >= self.high {
                port -= self.starts * self.step;
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
