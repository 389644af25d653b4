//! Sums of products of elements that have an index in common, in Einstein's notation: diagonals, sums, transposes and
//! matrix products.

use crate::{Error, MAX_RANK, Reduction, Result, Tensor};
use smallvec::SmallVec;

/// An index of an operand. Those that `...` stands for are numbers from the last on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A letter.
    Letter(char),
    /// See above.
    Rest(usize),
}

/// Labels of an operand, in the order of its dimensions.
pub type Labels = SmallVec<[Label; MAX_RANK]>;

/// `ij,jk->ik`: the product of two matrices. A letter names an index; what no output has is summed over, and `...`
/// stands for leading dimensions, which are broadcast. Without `->` the output has the letters that stand once, sorted,
/// behind those of `...`.
///
/// # Errors
/// [`Error::Argument`] if the equation is none, or does not fit the operands; those of [`Tensor::matmul`].
pub fn einsum(equation: &str, operands: &[&Tensor]) -> Result<Tensor> {
    let dims: Vec<&[usize]> = operands.iter().map(|t| t.dims()).collect();
    let ranks: Vec<usize> = dims.iter().map(|d| d.len()).collect();
    let plan = Equation::new(equation, &ranks)?;
    plan.sizes(&dims)?;
    let mut terms: Vec<(Tensor, Labels)> = Vec::new();
    for (n, (t, indices)) in operands.iter().zip(&plan.inputs).enumerate() {
        let others = plan.inputs[n + 1..].iter().chain(&plan.inputs[..n]);
        terms.push(alone(t, indices, |i| plan.output.contains(i) || others.clone().any(|o| o.contains(i)))?);
    }
    let mut terms = terms.into_iter();
    let (mut all, mut indices) = terms.next().ok_or_else(|| bad("has no operands".into()))?;
    let mut later: SmallVec<[(Tensor, Labels); 4]> = terms.collect();
    while !later.is_empty() {
        let (t, own) = later.remove(0);
        let kept = |i: &Label| plan.output.contains(i) || later.iter().any(|(_, o)| o.contains(i));
        (all, indices) = product((&all, &indices), (&t, &own), kept)?;
    }
    let (all, indices) = alone(&all, &indices, |i| plan.output.contains(i))?;
    arrange(&all, &indices, &plan.output)
}

/// An equation for operands of these ranks.
#[derive(Clone, Debug)]
pub struct Equation {
    /// The indices of each operand.
    pub inputs: Vec<Labels>,
    /// Those of the result.
    pub output: Labels,
}

fn bad(message: String) -> Error {
    Error::Argument { operation: "einsum", argument: "equation", message }
}

impl Equation {
    /// Reads an equation.
    ///
    /// # Errors
    /// [`Error::Argument`] if it is none, or does not fit operands of these ranks.
    pub fn new(equation: &str, ranks: &[usize]) -> Result<Self> {
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (&*text, None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(bad(format!("`{equation}` has {} terms, but there are {} operands", terms.len(), ranks.len())));
        }
        let mut rest = 0;
        let mut inputs = Vec::new();
        for (term, &rank) in terms.iter().zip(ranks) {
            let letters = parse(term, equation)?;
            let named = letters.iter().flatten().count();
            let open = rank.checked_sub(named).filter(|&n| n == 0 || named < letters.len());
            let open = open.ok_or_else(|| bad(format!("`{term}` does not fit an operand of {rank} dimensions")))?;
            rest = rest.max(open);
            inputs.push(spelled(&letters, open));
        }
        let output = match right {
            Some(term) => {
                let letters = parse(term, equation)?;
                let output = spelled(&letters, rest);
                let known = |i: &Label| matches!(i, Label::Rest(_)) || inputs.iter().any(|o| o.contains(i));
                let again = |n: usize| output[..n].contains(&output[n]);
                if !output.iter().all(known) || (0..output.len()).any(again) {
                    return Err(bad(format!("`{term}` must name indices of the operands, each once")));
                }
                output
            }
            None => {
                let all: Vec<Label> = inputs.iter().flatten().copied().collect();
                let mut letters: Vec<char> = Vec::new();
                for i in &all {
                    if let Label::Letter(c) = i
                        && all.iter().filter(|o| *o == i).count() == 1
                    {
                        letters.push(*c);
                    }
                }
                letters.sort_unstable();
                (0..rest).rev().map(Label::Rest).chain(letters.into_iter().map(Label::Letter)).collect()
            }
        };
        if output.len() > MAX_RANK {
            return Err(bad(format!("`{equation}` gives more than {MAX_RANK} dimensions")));
        }
        Ok(Self { inputs, output })
    }

    /// The size of each index of the output.
    fn sizes(&self, dims: &[&[usize]]) -> Result<SmallVec<[usize; MAX_RANK]>> {
        let size = |i: &Label| {
            let mut size = 1;
            for (indices, dims) in self.inputs.iter().zip(dims) {
                for (own, &n) in indices.iter().zip(*dims) {
                    if own != i || n == size || n == 1 {
                        continue;
                    }
                    if size != 1 {
                        return Err(bad(format!("has an index that is both of size {size} and of size {n}")));
                    }
                    size = n;
                }
            }
            Ok(size)
        };
        for indices in &self.inputs {
            indices.iter().try_for_each(|i| size(i).map(|_| ()))?;
        }
        self.output.iter().map(size).collect()
    }
}

/// The letters of a term, `None` where `...` stands.
fn parse(term: &str, equation: &str) -> Result<Vec<Option<char>>> {
    let mut letters = Vec::new();
    let mut rest = term;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...")
            && !letters.contains(&None)
        {
            letters.push(None);
            rest = after;
        } else if c.is_ascii_alphabetic() {
            letters.push(Some(c));
            rest = &rest[1..];
        } else {
            return Err(bad(format!("`{equation}` must be letters, `,`, `->` and one `...` a term")));
        }
    }
    Ok(letters)
}

fn spelled(letters: &[Option<char>], open: usize) -> Labels {
    let mut all = Labels::new();
    for l in letters {
        match l {
            Some(c) => all.push(Label::Letter(*c)),
            None => all.extend((0..open).rev().map(Label::Rest)),
        }
    }
    all
}

/// An operand with each index once, without those that nobody keeps.
fn alone(t: &Tensor, indices: &Labels, kept: impl Fn(&Label) -> bool) -> Result<(Tensor, Labels)> {
    let (mut t, mut own) = (t.clone(), indices.clone());
    let once: Labels = own.iter().enumerate().filter(|(n, i)| !own[..*n].contains(i)).map(|(_, i)| *i).collect();
    if once.len() < own.len() {
        let strides = t.shape().strides();
        let (mut dims, mut diagonal) = ([1; MAX_RANK], [0; MAX_RANK]);
        for (n, i) in once.iter().enumerate() {
            let places = || (0..own.len()).filter(|&p| own[p] == *i);
            dims[n] = places().map(|p| t.dims()[p]).max().unwrap_or(1);
            // One that is broadcast stays where it is.
            diagonal[n] = places().filter(|&p| t.dims()[p] > 1).map(|p| strides[p]).sum();
        }
        t = t.view("einsum", &dims[..once.len()], &diagonal)?;
        own = once;
    }
    let summed: SmallVec<[usize; MAX_RANK]> = (0..own.len()).filter(|&n| !kept(&own[n])).collect();
    if !summed.is_empty() {
        t = t.reduce_axes(Reduction::Sum, &summed)?;
        let dims: SmallVec<[usize; MAX_RANK]> =
            (0..own.len()).filter(|n| !summed.contains(n)).map(|n| t.dims()[n]).collect();
        t = t.reshape(&dims)?;
        own.retain(|i| kept(i));
    }
    Ok((t, own))
}

/// The product of two operands whose indices stand once each, summed over what nobody keeps.
fn product(
    (a, ai): (&Tensor, &Labels),
    (b, bi): (&Tensor, &Labels),
    kept: impl Fn(&Label) -> bool,
) -> Result<(Tensor, Labels)> {
    // An index of size 1 is as good as none, but for the result's shape.
    let (a, ai, b, bi) = {
        let squeezed = |t: &Tensor, own: &Labels, other: &Labels| -> Result<(Tensor, Labels)> {
            let stays = |n: &usize| t.dims()[*n] > 1 || !other.contains(&own[*n]);
            let dims: SmallVec<[usize; MAX_RANK]> = (0..own.len()).filter(stays).map(|n| t.dims()[n]).collect();
            Ok((t.reshape(&dims)?, (0..own.len()).filter(stays).map(|n| own[n]).collect()))
        };
        let (a, ai) = squeezed(a, ai, bi)?;
        let (b, bi) = squeezed(b, bi, &ai)?;
        (a, ai, b, bi)
    };
    let size = |t: &Tensor, own: &Labels, i: &Label| own.iter().position(|o| o == i).map_or(1, |n| t.dims()[n]);
    let batch: Labels = ai.iter().filter(|i| bi.contains(i) && kept(i)).copied().collect();
    let inner: Labels = ai.iter().filter(|i| bi.contains(i) && !kept(i)).copied().collect();
    let left: Labels = ai.iter().filter(|i| !bi.contains(i)).copied().collect();
    let right: Labels = bi.iter().filter(|i| !ai.contains(i)).copied().collect();
    let count = |t: &Tensor, own: &Labels, of: &Labels| of.iter().map(|i| size(t, own, i)).product::<usize>();
    let joined = |parts: [&Labels; 3]| parts.into_iter().flatten().copied().collect::<Labels>();
    let (n, k) = (count(&a, &ai, &batch), count(&a, &ai, &inner));
    let (m, c) = (count(&a, &ai, &left), count(&b, &bi, &right));
    let x = arrange(&a, &ai, &joined([&batch, &left, &inner]))?.reshape(&[n, m, k])?;
    let y = arrange(&b, &bi, &joined([&batch, &inner, &right]))?.reshape(&[n, k, c])?;
    let out = joined([&batch, &left, &right]);
    if out.len() > MAX_RANK {
        return Err(bad(format!("makes a product of {} dimensions, more than {MAX_RANK}", out.len())));
    }
    let dims: SmallVec<[usize; MAX_RANK]> = out.iter().map(|i| size(&a, &ai, i).max(size(&b, &bi, i))).collect();
    let product = if k == 1 { x.mul(&y)? } else { x.matmul(&y)? };
    Ok((product.reshape(&dims)?, out))
}

/// The dimensions in the order of `order`, where indices that there are not have size 1.
fn arrange(t: &Tensor, indices: &Labels, order: &Labels) -> Result<Tensor> {
    let there: SmallVec<[usize; MAX_RANK]> = order.iter().filter_map(|i| indices.iter().position(|o| o == i)).collect();
    let t = if there.iter().copied().eq(0..indices.len()) { t.clone() } else { t.transpose(&there)? };
    if order.len() == indices.len() {
        return Ok(t);
    }
    let mut next = t.dims().iter();
    let dims: SmallVec<[usize; MAX_RANK]> =
        order.iter().map(|i| if indices.contains(i) { *next.next().expect("one for each index") } else { 1 }).collect();
    t.reshape(&dims)
}
