//! Matrix products.

use super::prelude::*;

/// `a · b`: `[…, m, k] · [k, n]`, or with the same leading dimensions on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul;

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("a"), Slot::Required("b")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (a, b) = (float(inputs, 0)?, float(inputs, 1)?);
        let [leading @ .., m, k] = &a.dims[..] else {
            return Err(Fault::Input(0, "[…, m, k]".into()));
        };
        let bad = || Fault::Input(1, format!("[k, n] or […, k, n] with k = {k}, for {a}"));
        let [own @ .., rows, n] = &b.dims[..] else { return Err(bad()) };
        rows.meet(k).ok_or_else(bad)?;
        let mut dims = leading.to_vec();
        if !own.is_empty() {
            if own.len() != leading.len() {
                return Err(bad());
            }
            for (d, o) in dims.iter_mut().zip(own) {
                *d = d.meet(o).ok_or_else(bad)?;
            }
        }
        dims.extend([m.clone(), n.clone()]);
        Ok(vec![a.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).matmul(call.input(1))?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (a, b) = (array(inputs, 0), array(inputs, 1));
        let (k, n, rank) = (a.last(), b.last(), a.dims.len());
        let dims = [&a.dims[..rank - 1], &[n]].concat();
        vec![Some(Array::from_fn(&dims, |i| {
            let (mut left, mut right) = (i.to_vec(), i.to_vec());
            (0..k)
                .map(|p| {
                    left[rank - 1] = p;
                    right[rank - 2] = p;
                    a.at(&left) * b.at(&right)
                })
                .sum()
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
