//! Which stored row belongs to which item.

/// The row of an item that has none.
const NO_ROW: u32 = u32::MAX;

/// A row an item, or none. Rows mostly lie in the items' order; then nothing is kept of tens of millions of items.
#[derive(Debug, Clone)]
pub(super) enum RowOfItem {
    /// Item i has row i, for so many items.
    InOrder(usize),
    /// Row of each item, or [`NO_ROW`].
    Listed(Vec<u32>),
}

impl RowOfItem {
    pub(super) fn new(row_of_item: Vec<Option<u32>>) -> Self {
        let mut rows = row_of_item.iter().enumerate();
        if rows.all(|(item, &row)| row == Some(item as u32)) {
            return Self::InOrder(row_of_item.len());
        }
        let rows = row_of_item.into_iter();
        Self::Listed(rows.map(|row| row.unwrap_or(NO_ROW)).collect())
    }

    /// Items, with a row or without.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::InOrder(n) => *n,
            Self::Listed(rows) => rows.len(),
        }
    }

    /// # Panics
    /// When there is no such item.
    #[inline]
    pub(super) fn get(&self, item: usize) -> Option<usize> {
        match self {
            Self::InOrder(n) => {
                assert!(item < *n, "item {item} of {n}");
                Some(item)
            }
            Self::Listed(rows) => {
                let row = rows[item];
                (row != NO_ROW).then_some(row as usize)
            }
        }
    }

    /// Keeps the items whose flag is set, with their rows.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        let kept = (0..self.len()).filter(|&item| keep[item]);
        let rows = kept.map(|item| self.get(item).map(|row| row as u32));
        *self = Self::new(rows.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_whether_listed_or_in_order() {
        let mut in_order = RowOfItem::new(vec![Some(0), Some(1), Some(2)]);
        assert!(matches!(in_order, RowOfItem::InOrder(3)));
        in_order.retain(&[true, false, true]);
        let mut listed = RowOfItem::new(vec![Some(0), None, Some(2), Some(1)]);
        listed.retain(&[true, true, true, false]);
        let rows = |of: &RowOfItem| (0..of.len()).map(|item| of.get(item)).collect::<Vec<_>>();
        assert_eq!(rows(&in_order), [Some(0), Some(2)]);
        assert_eq!(rows(&listed), [Some(0), None, Some(2)]);
        assert_eq!(RowOfItem::new(Vec::new()).len(), 0);
    }
}
