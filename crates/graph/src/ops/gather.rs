//! Rows of a table, selected by id.

use super::prelude::*;

/// Rows of a table `[V, W]`, selected by ids of any shape. The result has the shape of the ids, followed by W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather;

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
    fn as_any(&self) -> &dyn Any {
        self
    }
}
