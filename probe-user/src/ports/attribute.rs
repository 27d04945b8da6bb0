//! Whose sockets in TIME-WAIT these are. They have no owner; who connected to their destination is counted, so they
//! are that process's, or are divided by how often each connected. Pure.

/// A division of sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Division {
    /// Sockets of each owner, in the order of the weights.
    pub shares: Vec<u64>,
    /// Sockets of nobody: more than anyone was seen to make.
    pub unknown: u64,
}

/// Divides sockets by connects. Nobody can have more sockets than connects; with fewer sockets than connects (the
/// peer closed first, or the time is over) each has the same part of its connects. Whole sockets: those left over by
/// rounding go to the largest remainders.
pub fn divide(sockets: u64, connects: &[u64]) -> Division {
    let total: u128 = connects.iter().map(|&connects| u128::from(connects)).sum();
    let caused = u128::from(sockets).min(total);
    if total == 0 {
        return Division { shares: vec![0; connects.len()], unknown: sockets };
    }
    let part =
        |connects: &u64| (u128::from(*connects) * caused / total, u128::from(*connects) * caused % total);
    let parts: Vec<(u128, u128)> = connects.iter().map(part).collect();
    let mut left = caused - parts.iter().map(|(whole, _)| whole).sum::<u128>();
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    by_remainder.sort_by_key(|&index| std::cmp::Reverse(parts.get(index).map_or(0, |(_, rest)| *rest)));
    let mut shares: Vec<u64> =
        parts.iter().map(|(whole, _)| u64::try_from(*whole).unwrap_or(u64::MAX)).collect();
    for index in by_remainder {
        if left == 0 {
            break;
        }
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
            left -= 1;
        }
    }
    Division { shares, unknown: sockets - u64::try_from(caused).unwrap_or(sockets) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_only_one_who_connected_has_them_all_but_those_from_before() {
        assert_eq!(divide(40, &[60]), Division { shares: vec![40], unknown: 0 });
        assert_eq!(divide(849, &[3]), Division { shares: vec![3], unknown: 846 });
        assert_eq!(divide(7, &[]), Division { shares: vec![], unknown: 7 });
        assert_eq!(divide(7, &[0, 0]), Division { shares: vec![0, 0], unknown: 7 });
    }

    #[test]
    fn several_share_by_how_often_they_connected() {
        assert_eq!(divide(100, &[300, 100]), Division { shares: vec![75, 25], unknown: 0 });
        assert_eq!(divide(2, &[1, 1, 1]).shares.iter().sum::<u64>(), 2);
        assert_eq!(divide(u64::MAX, &[u64::MAX, u64::MAX]).unknown, 0);
    }

    proptest! {
        #[test]
        fn nothing_is_invented_and_nobody_has_more_than_they_made(
            sockets in 0..100_000_u64,
            connects in prop::collection::vec(0..10_000_u64, 0..20),
        ) {
            let division = divide(sockets, &connects);
            prop_assert_eq!(division.shares.iter().sum::<u64>() + division.unknown, sockets);
            for (share, connects) in division.shares.iter().zip(&connects) {
                prop_assert!(share <= connects);
            }
        }
    }
}
