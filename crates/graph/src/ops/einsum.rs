//! Sums of products in Einstein's notation.

use super::on_host;
use super::prelude::*;
use super::{ExpandLike, Extent, Reshape};
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
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let (dy, count) = (g.of_only_output(), g.inputs());
        let all: Vec<_> = (0..count).map(|i| g.input(i)).collect();
        if all.iter().any(|&v| g.kind(v).unranked) {
            return Err(g.missing("the number of dimensions of an input is not known before a run"));
        }
        let ranks: Vec<usize> = all.iter().map(|&v| g.kind(v).rank()).collect();
        let Equation { inputs, output } =
            Equation::new(&self.equation, &ranks).map_err(|e| g.missing(&e.to_string()))?;
        let mut known: Vec<Label> = Vec::new();
        for label in inputs.iter().flatten() {
            if !known.contains(label) {
                known.push(*label);
            }
        }
        let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
        if known.len() > letters.len() {
            return Err(g.missing("it has more indices than there are letters"));
        }
        let letter = |label: &Label| letters[known.iter().position(|k| k == label).expect("seen above")];
        for i in (0..count).filter(|&i| g.wants(i)).collect::<Vec<_>>() {
            let own = &inputs[i];
            if (0..own.len()).any(|n| own[..n].contains(&own[n])) {
                return Err(g.missing("an input has the same index twice"));
            }
            // The product of the gradient and the other inputs, which has the input's indices as far as they have.
            let others: Vec<usize> = (0..count).filter(|&o| o != i).collect();
            let has = |label: &&Label| output.contains(label) || others.iter().any(|&o| inputs[o].contains(label));
            let target: Vec<&Label> = own.iter().filter(has).collect();
            let terms = core::iter::once(&output).chain(others.iter().map(|&o| &inputs[o]));
            let terms: Vec<String> = terms.map(|labels| labels.iter().map(letter).collect()).collect();
            let result: String = target.iter().map(|label| letter(label)).collect();
            let mut d = dy;
            if !others.is_empty() || terms[0] != result {
                let operands: Vec<_> = core::iter::once(dy).chain(others.iter().map(|&o| all[o])).collect();
                d = g.node(Self { equation: format!("{}->{result}", terms.join(",")) }, &operands)?;
            }
            if target.len() < own.len() {
                let extent = |label: &Label| match target.iter().position(|t| *t == label) {
                    Some(n) => Extent::Axes(n, 1),
                    None => Extent::Size(1),
                };
                d = g.node(Reshape(own.iter().map(extent).collect()), &[d])?;
            }
            // An index that is summed over alone, or with inputs of size 1, repeats it.
            let (one, x) = (g.number(1.0)?, all[i]);
            let smaller = |(a, b): (&Dim, &Dim)| a.size() == Some(1) && b.size() != Some(1);
            if g.kind(d).dims.iter().zip(&g.kind(x).dims).any(smaller) {
                let ones = g.node(ExpandLike, &[one, x])?;
                d = g.times(d, ones)?;
            }
            g.give_sum(i, d)?;
        }
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
