//! Gallery positions in groups: identities, or clusters that stand in for them.

/// Every gallery position in one group of `0..len`, none of them empty.
#[derive(Debug)]
pub(super) struct Groups {
    /// Group of each position.
    of_position: Vec<u32>,
    /// Where each group begins in `positions`, and the end.
    begins: Vec<usize>,
    /// Positions by group, rising within each.
    positions: Vec<u32>,
}

impl Groups {
    /// `of_position` names each group of `0..=` the highest at least once.
    pub(super) fn new(of_position: Vec<u32>) -> Self {
        let n = of_position
            .iter()
            .max()
            .map_or(0, |&last| last as usize + 1);
        let mut begins = vec![0; n + 1];
        for &group in &of_position {
            begins[group as usize + 1] += 1;
        }
        for group in 0..n {
            begins[group + 1] += begins[group];
        }
        let mut next = begins.clone();
        let mut positions = vec![0; of_position.len()];
        for (position, &group) in of_position.iter().enumerate() {
            let place = &mut next[group as usize];
            positions[*place] = position as u32;
            *place += 1;
        }
        Self {
            of_position,
            begins,
            positions,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.begins.len() - 1
    }

    /// Positions of all groups together.
    pub(super) fn n_positions(&self) -> usize {
        self.positions.len()
    }

    /// The group of a position.
    pub(super) fn of(&self, position: usize) -> usize {
        self.of_position[position] as usize
    }

    /// Positions of a group.
    pub(super) fn size(&self, group: usize) -> usize {
        self.begins[group + 1] - self.begins[group]
    }

    /// The positions of a group, rising.
    pub(super) fn positions(&self, group: usize) -> impl ExactSizeIterator<Item = usize> + '_ {
        let of_group = &self.positions[self.begins[group]..self.begins[group + 1]];
        of_group.iter().map(|&position| position as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_lie_by_group_and_rise() {
        let groups = Groups::new(vec![2, 0, 2, 1, 0, 2]);
        let all: Vec<Vec<usize>> = (0..groups.len())
            .map(|group| groups.positions(group).collect())
            .collect();
        assert_eq!(all, [vec![1, 4], vec![3], vec![0, 2, 5]]);
        assert_eq!((groups.size(2), groups.of(3)), (3, 1));
        assert_eq!(Groups::new(Vec::new()).len(), 0);
    }
}
