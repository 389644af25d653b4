//! Rows of a table, selected by id.

use super::prelude::*;

/// Rows of a table `[V, W]`, selected by ids of any shape. The result has the shape of the ids, followed by W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather;

/// The gradient of the table of a [`Gather`]: for each row the sum of the rows of `dy` that were read from it, in order,
/// so that the same ids give the same bits. Inputs: `dy` with the shape of the ids, followed by W, the ids, and the
/// table, of which only the shape matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumRows;

/// [`SumRows`] in f64.
pub(super) fn sum_rows(dy: &Array, ids: &Array, table: &Array) -> Array {
    let mut out = Array::new(&table.dims, vec![0.0; table.data.len()]);
    let width = table.last();
    for (row, id) in dy.data.chunks_exact(width).zip(ids.ids()) {
        let id = (id as usize).min(table.dims[0] - 1);
        out.data[id * width..][..width].iter_mut().zip(row).for_each(|(o, v)| *o += v);
    }
    out
}

impl Operator for SumRows {
    fn name(&self) -> &'static str {
        "SumRows"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("dy"), Slot::Required("ids"), Slot::Required("table")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (dy, ids, table) = (float(inputs, 0)?, ids(inputs, 1)?, float(inputs, 2)?);
        if dy.rank() != ids.rank() + 1 || table.rank() != 2 {
            return Err(Fault::Input(0, format!("of the shape of the ids, {ids}, followed by the width of {table}")));
        }
        Ok(vec![table.clone()])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        let (dy, ids, table) = (call.input(0), call.input(1), call.input(2));
        Ok(one(dy.sum_rows(ids, table.dims()[0])?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let [dy, ids, table] = [0, 1, 2].map(|n| array(inputs, n));
        vec![Some(sum_rows(dy, ids, table))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("table"), Slot::Required("ids")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let (table, ids) = (float(inputs, 0)?, ids(inputs, 1)?);
        let [_, width] = &table.dims[..] else {
            return Err(Fault::Input(0, "a table [rows, width]".into()));
        };
        let dims = ids.dims.iter().chain([width]).cloned().collect();
        Ok(vec![table.with_dims(dims)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        Ok(one(call.input(0).gather(call.input(1))?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let (table, ids) = (array(inputs, 0), array(inputs, 1));
        let dims = [&ids.dims[..], &[table.last()]].concat();
        vec![Some(Array::new(&dims, recurve_reference::embedding(&table.data, table.last(), &ids.ids())))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        if g.wants(0) {
            let (dy, table, ids) = (g.of_only_output(), g.input(0), g.input(1));
            let d = g.node(super::SumRows, &[dy, ids, table])?;
            g.give(0, d);
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
