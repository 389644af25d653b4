//! Blocks of channels as places, and back.

use super::moves::{Elements, Moves, Numbers, bad, moves, permuted};
use super::prelude::*;

/// In which order the channels of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockOrder {
    /// Row and column of the block before the channel, `DCR`.
    BlockFirst,
    /// The channel before row and column, `CRD`.
    ChannelFirst,
}

/// Channels of `x`, `[N, C, H, W]`, as blocks of places: `[N, C / b², H · b, W · b]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthToSpace {
    /// Rows and columns of a block.
    pub block: usize,
    /// Where the channels stand.
    pub order: BlockOrder,
}

/// Blocks of places of `x`, `[N, C, H, W]`, as channels: `[N, C · b², H / b, W / b]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceToDepth {
    /// Rows and columns of a block.
    pub block: usize,
    /// Where the channels go.
    pub order: BlockOrder,
}

const TO_SPACE: &str = "DepthToSpace";
const TO_DEPTH: &str = "SpaceToDepth";

fn four(operation: &'static str, dims: &[usize], block: usize) -> Result<[usize; 4]> {
    if block == 0 || block > 1 << 16 {
        return Err(bad(operation, "blocksize", format!("must be 1 to 65536, but it is {block}")));
    }
    <[usize; 4]>::try_from(dims)
        .map_err(|_| bad(operation, "input", format!("must be [N, C, H, W], but it is {dims:?}")))
}

impl Moves for DepthToSpace {
    fn moved<E: Elements>(&self, x: &E, _: &Numbers) -> Result<E> {
        let b = self.block;
        let [n, c, h, w] = four(TO_SPACE, x.dims(), b)?;
        if !c.is_multiple_of(b * b) {
            return Err(bad(TO_SPACE, "blocksize", format!("is {b}, whose square does not divide {c} channels")));
        }
        let depth = c / (b * b);
        let y = match self.order {
            BlockOrder::BlockFirst => {
                permuted(TO_SPACE, &x.reshaped(TO_SPACE, &[n, b, b, depth, h, w])?, &[0, 3, 4, 1, 5, 2])?
            }
            BlockOrder::ChannelFirst => {
                permuted(TO_SPACE, &x.reshaped(TO_SPACE, &[n, depth, b, b, h, w])?, &[0, 1, 4, 2, 5, 3])?
            }
        };
        y.reshaped(TO_SPACE, &[n, depth, h * b, w * b])
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        let [n, c, h, w] = dims_of(x)?;
        let (b, divided) =
            (Dim::Size(self.block), |d: &Dim, by: usize| d.size().and_then(|d| d.checked_div(by)).into());
        let block = self.block.saturating_mul(self.block);
        Ok(x.with_dims(vec![n.clone(), divided(&c, block), h.times(&b), w.times(&b)]))
    }
}

/// The dimensions of a type as far as they are known.
fn dims_of(x: &ValueType) -> Result<[Dim; 4], Fault> {
    match &x.dims[..] {
        _ if x.unranked => Ok([Dim::Any, Dim::Any, Dim::Any, Dim::Any]),
        [n, c, h, w] => Ok([n.clone(), c.clone(), h.clone(), w.clone()]),
        _ => Err(Fault::Input(0, "[N, C, H, W]".into())),
    }
}

impl Operator for DepthToSpace {
    fn name(&self) -> &'static str {
        TO_SPACE
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let b = self.block;
        let depth = x.dims[1] / (b * b);
        vec![Some(Array::from_fn(&[x.dims[0], depth, x.dims[2] * b, x.dims[3] * b], |i| {
            let block = (i[2] % b) * b + i[3] % b;
            let channel = match self.order {
                BlockOrder::BlockFirst => block * depth + i[1],
                BlockOrder::ChannelFirst => i[1] * b * b + block,
            };
            x.at(&[i[0], channel, i[2] / b, i[3] / b])
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        let dx = g.node(SpaceToDepth { block: self.block, order: self.order }, &[dy])?;
        g.give(0, dx);
        Ok(())
    }
    moves!();
}

impl Moves for SpaceToDepth {
    fn moved<E: Elements>(&self, x: &E, _: &Numbers) -> Result<E> {
        let b = self.block;
        let [n, c, h, w] = four(TO_DEPTH, x.dims(), b)?;
        if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
            return Err(bad(TO_DEPTH, "blocksize", format!("is {b}, which does not divide {h} × {w} places")));
        }
        let x = x.reshaped(TO_DEPTH, &[n, c, h / b, b, w / b, b])?;
        let axes = match self.order {
            BlockOrder::BlockFirst => [0, 3, 5, 1, 2, 4],
            BlockOrder::ChannelFirst => [0, 1, 3, 5, 2, 4],
        };
        permuted(TO_DEPTH, &x, &axes)?.reshaped(TO_DEPTH, &[n, c * b * b, h / b, w / b])
    }
    fn open(&self, x: &ValueType, _: &[Option<&ValueType>]) -> Result<ValueType, Fault> {
        let [n, c, h, w] = dims_of(x)?;
        let divided = |d: &Dim| d.size().and_then(|d| d.checked_div(self.block)).into();
        let block = Dim::Size(self.block.saturating_mul(self.block));
        Ok(x.with_dims(vec![n.clone(), c.times(&block), divided(&h), divided(&w)]))
    }
}

impl Operator for SpaceToDepth {
    fn name(&self) -> &'static str {
        TO_DEPTH
    }
    fn slots(&self) -> &[Slot] {
        &[Slot::Required("input")]
    }
    fn reference(&self, inputs: &[Option<&Array>]) -> Vec<Option<Array>> {
        let x = array(inputs, 0);
        let (b, depth) = (self.block, x.dims[1]);
        vec![Some(Array::from_fn(&[x.dims[0], depth * b * b, x.dims[2] / b, x.dims[3] / b], |i| {
            let (block, channel) = match self.order {
                BlockOrder::BlockFirst => (i[1] / depth, i[1] % depth),
                BlockOrder::ChannelFirst => (i[1] % (b * b), i[1] / (b * b)),
            };
            x.at(&[i[0], channel, i[2] * b + block / b, i[3] * b + block % b])
        }))]
    }
    fn gradient(&self, g: &mut Gradients<'_>) -> crate::Result<()> {
        let dy = g.of_only_output();
        let dx = g.node(DepthToSpace { block: self.block, order: self.order }, &[dy])?;
        g.give(0, dx);
        Ok(())
    }
    moves!();
}
