//! Sums of products in Einstein's notation.

use super::on_host;
use super::prelude::*;
use crate::operator::given;
use recurve_tensor::{Equation, Label};

/// [`recurve_tensor::einsum`]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// `ij,jk->ik`, for example.
    pub equation: String,
}

impl Operator for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Many("inputs")]
    }
    fn output_types(&self, inputs: &[Option<&ValueType>]) -> Result<Vec<ValueType>, Fault> {
        let all = (0..inputs.len()).map(|i| given(inputs, i)).collect::<Result<Vec<_>, _>>()?;
        let dtype = all[0].dtype;
        if let Some(i) = all.iter().position(|t| t.dtype != dtype) {
            return Err(Fault::Input(i, format!("{dtype}, as the first")));
        }
        if all.iter().any(|t| t.unranked) {
            return Ok(vec![ValueType::unranked(dtype)]);
        }
        let ranks: Vec<usize> = all.iter().map(|t| t.rank()).collect();
        let equation =
            Equation::new(&self.equation, &ranks).map_err(|e| Fault::Attribute("equation", e.to_string()))?;
        let size = |index: &Label| {
            let mut dim = Dim::Size(1);
            for (i, (own, t)) in equation.inputs.iter().zip(&all).enumerate() {
                for (o, d) in own.iter().zip(&t.dims) {
                    if o == index {
                        let bad = || Fault::Input(i, format!("of size {dim} where `{}` says so", self.equation));
                        dim = dim.broadcast(d).ok_or_else(bad)?;
                    }
                }
            }
            Ok(dim)
        };
        Ok(vec![ValueType::new(dtype, equation.output.iter().map(size).collect::<Result<Vec<_>, _>>()?)])
    }
    fn run(&self, call: &Call<'_>) -> Result<Outputs> {
        if call.all_ints().is_some() {
            return on_host(self, call);
        }
        let all = (0..call.inputs.len()).map(|i| call.floats(i)).collect::<Result<Vec<_>>>()?;
        let all: Vec<&Tensor> = all.iter().map(|t| &**t).collect();
        Ok(one(recurve_tensor::einsum(&self.equation, &all)?))
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let all: Vec<&Array> = (0..inputs.len()).map(|i| array(inputs, i)).collect();
        let ranks: Vec<usize> = all.iter().map(|a| a.dims.len()).collect();
        let equation = Equation::new(&self.equation, &ranks).expect("inputs that fit");
        let mut indices: Vec<Label> = equation.output.to_vec();
        for i in equation.inputs.iter().flatten() {
            if !indices.contains(i) {
                indices.push(*i);
            }
        }
        let size = |i: &Label| {
            let sizes = equation.inputs.iter().zip(&all).flat_map(|(own, a)| own.iter().zip(&a.dims));
            sizes.filter(|(o, _)| *o == i).map(|(_, &d)| d).max().unwrap_or(1)
        };
        let sizes: Vec<usize> = indices.iter().map(size).collect();
        let (out, summed) = sizes.split_at(equation.output.len());
        vec![Some(Array::from_fn(out, |o| {
            let mut sum = 0.0;
            super::window::each(summed, |s| {
                let at = [o, s].concat();
                let place = |i: &Label| at[indices.iter().position(|p| p == i).expect("every index is there")];
                let factors = equation.inputs.iter().zip(&all).map(|(own, a)| {
                    let own: Vec<usize> = own.iter().map(place).collect();
                    a.at(&own)
                });
                sum += factors.product::<f64>();
            });
            sum
        }))]
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
