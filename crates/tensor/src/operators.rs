//! `+`, `-`, `*` and `/` between tensors, and between a tensor and a number.

use crate::ops::Operation;
use crate::{Result, Tensor};
use core::ops::{Add, Div, Mul, Sub};

macro_rules! between {
    ($Trait:ident, $method:ident: $($left:ty, $right:ty;)*) => {$(
        impl $Trait<$right> for $left {
            type Output = Result<Tensor>;
            fn $method(self, other: $right) -> Self::Output {
                Tensor::$method(&self, &other)
            }
        }
    )*};
}

macro_rules! with_numbers {
    ($Trait:ident, $method:ident: $($tensor:ty;)*) => {$(
        impl $Trait<f32> for $tensor {
            type Output = Result<Tensor>;
            fn $method(self, number: f32) -> Self::Output {
                self.with_number(number, Operation::$Trait, false)
            }
        }
        impl $Trait<$tensor> for f32 {
            type Output = Result<Tensor>;
            fn $method(self, tensor: $tensor) -> Self::Output {
                tensor.with_number(self, Operation::$Trait, true)
            }
        }
    )*};
}

macro_rules! operators {
    ($($Trait:ident, $method:ident;)*) => {$(
        between!($Trait, $method: &Tensor, &Tensor; &Tensor, Tensor; Tensor, &Tensor; Tensor, Tensor;);
        with_numbers!($Trait, $method: &Tensor; Tensor;);
    )*};
}

operators! {
    Add, add;
    Sub, sub;
    Mul, mul;
    Div, div;
}
