//! Arrays of f64 in host memory, with which the operators' f64 references are computed.

/// An array of f64, row-major. Ids and masks are stored as whole numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// The dimensions.
    pub dims: Vec<usize>,
    /// The elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array with these elements.
    ///
    /// # Panics
    /// If the number of elements is not the product of the dimensions.
    pub fn new(dims: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len(), "elements of {dims:?}");
        Self { dims: dims.to_vec(), data }
    }

    /// An array whose element at each index is `f(index)`.
    pub fn from_fn(dims: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let mut at = vec![0; dims.len()];
        let count: usize = dims.iter().product();
        let mut data = Vec::with_capacity(count);
        for _ in 0..count {
            data.push(f(&at));
            for axis in (0..dims.len()).rev() {
                at[axis] += 1;
                if at[axis] < dims[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Self::new(dims, data)
    }

    /// The element at an index, as broadcasting reads it: leading indices may be missing from an array with fewer
    /// dimensions, and along an axis of size 1 every index reads element 0.
    pub fn at(&self, index: &[usize]) -> f64 {
        let index = &index[index.len() - self.dims.len()..];
        let flat = self.dims.iter().zip(index).fold(0, |n, (&d, &i)| n * d + if d == 1 { 0 } else { i });
        self.data[flat]
    }

    /// The size of the last dimension; 1 if there are no dimensions.
    pub fn last(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// The elements as whole numbers.
    pub fn ids(&self) -> Vec<u32> {
        self.data.iter().map(|&v| v as u32).collect()
    }

    /// The same elements with other dimensions.
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        Self::new(dims, self.data.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_by_index() {
        let a = Array::from_fn(&[2, 3], |i| (10 * i[0] + i[1]) as f64);
        assert_eq!(a.data, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0]);
        assert_eq!(a.at(&[1, 2]), 12.0);
        assert_eq!(a.at(&[7, 1, 2]), 12.0, "leading indices are not its own");
        assert_eq!(Array::new(&[1, 2], vec![3.0, 4.0]).at(&[5, 1]), 4.0);
        assert_eq!(Array::new(&[], vec![3.0]).at(&[5, 1]), 3.0);
    }
}
