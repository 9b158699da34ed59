// The accuracy of the weights alone, for the instruction set in use.
#pragma once

namespace sigmoid_attention::test {

/// The largest relative error of sigmoid(L) over a dense grid of L in [low, high]; L is made of a score and
/// `bias`.
double WorstSigmoidError(double low, double high, double bias, double softcap);

}  // namespace sigmoid_attention::test
