/**
 * What a device must return for a case, and how far from it each element of Y may be.
 *
 * The bound is a first-order forward error analysis of the operator's formula with the precision that docs/operator.md
 * asks for, so it is relative to the terms that an element is made of, never to its own (possibly cancelled) value:
 *
 *   |y - Y[i,d]| <= |gain| * sum_j W_ij |V_jd| * (exp(e_ij) - 1) + underflow
 *   e_ij = 2 u_T + sqrt(Nk) eps + (4 + sqrt(D)) eps A_ij (1 - sigmoid(L_ij))
 *
 * u_T is the budget of the weights, 2^-20, 2^-10 and 2^-7; as much again is left for rounding the weights and Y to T.
 * eps = 2^-24 is float32's rounding error; sqrt(N) eps is how rounding errors of a sum of N terms grow. A_ij is the sum of
 * the absolute values of all terms of L_ij, the products of Q K^T included, and 1 - sigmoid(L) the sensitivity of a weight
 * to it. With normalize the same error can come through the divisor: e_ij grows by the row's weighted mean of e.
 * Underflow: half the smallest number of T, and weights below 2^-126 may be flushed to zero.
 */

import type { AttentionInputs } from '../../op/constraints.js';
import { AttentionCall, type AttentionOutputs, sigmoid, sigmoidAttention } from '../../op/reference.js';
import type { Attributes } from '../../op/schema.js';
import { fromNumbers, isElementType, type ElementType, type Tensor, toNumbers } from '../../op/tensor.js';

const FLOAT32_ROUNDING = 2 ** -24;
const WEIGHT_BUDGET: Readonly<Record<ElementType, number>> = {
  float: 2 ** -20,
  float16: 2 ** -10,
  bfloat16: 2 ** -7,
};
const HALF_SMALLEST: Readonly<Record<ElementType, number>> = {
  float: 2 ** -150,
  float16: 2 ** -25,
  bfloat16: 2 ** -134,
};
const SMALLEST_NORMAL_FLOAT32 = 2 ** -126;

export interface Expected extends AttentionOutputs {
  /** The largest error of each element of Y, in its layout. */
  readonly allowed: Float64Array;
}

export function expectedOutputs(inputs: AttentionInputs, attributes: Attributes): Expected {
  const outputs = sigmoidAttention(inputs, attributes);
  return { ...outputs, allowed: allowedErrors(inputs, attributes) };
}

function allowedErrors(inputs: AttentionInputs, attributes: Attributes): Float64Array {
  const call = new AttentionCall(inputs, attributes);
  const { type, batch, queryHeads, queryLength, valueHeadSize, keyLength, headSize } = call.sizes;
  const allowed = new Float64Array(batch * queryHeads * queryLength * valueHeadSize);
  const scoreError = (4 + Math.sqrt(headSize)) * FLOAT32_ROUNDING;
  const fixedError = 2 * WEIGHT_BUDGET[type] + Math.sqrt(keyLength) * FLOAT32_ROUNDING;
  const magnitudes = new AttentionCall(
    absoluteInputs(inputs),
    absoluteAttributes(attributes, keyLength),
  ).rows();
  for (const { b, h, i, weights, logits } of call.rows()) {
    const row = magnitudes.next();
    if (row.done) throw new Error('the rows of the absolute problem ended before those of the problem.');
    const error = weights.map((weight, j) =>
      weight === 0 ? 0 : fixedError + scoreError * logitError(logits[j]!, row.value.logits[j]!),
    );
    if (attributes.normalize === true) {
      const ofDivisor = weights.reduce((sum, weight, j) => sum + weight * error[j]!, 0);
      error.forEach((own, j) => (error[j] = own + ofDivisor));
    }
    for (let d = 0; d < valueHeadSize; d++) {
      let sum = 0;
      let flushed = 0;
      for (let j = 0; j < keyLength; j++) {
        if (weights[j] === 0) continue;
        const value = Math.abs(call.value(b, h, j, d));
        sum += weights[j]! * value * Math.expm1(error[j]!);
        flushed += value * SMALLEST_NORMAL_FLOAT32;
      }
      allowed[call.outputIndex(b, h, i, d)] =
        Math.abs(call.headGain(h)) * (sum + flushed) + HALF_SMALLEST[type];
    }
  }
  return allowed;
}

/** Magnitude of L times d log(sigmoid(L)) / dL; an infinite L saturates without error. */
function logitError(logit: number, magnitude: number): number {
  return logit === Infinity ? 0 : magnitude * (1 - sigmoid(logit));
}

/** A call whose logits are sums of the absolute values of the terms of the original's: -Infinity still hides. */
function absoluteInputs(inputs: AttentionInputs): AttentionInputs {
  const absolute = (name: string, tensor: Tensor): Tensor => {
    const { type, dims } = tensor;
    if (!isElementType(type)) return tensor;
    const sign = name === 'alibi_slopes' ? -1 : 1;
    const values = toNumbers(tensor).map((value) => (value === -Infinity ? value : sign * Math.abs(value)));
    return fromNumbers(type, dims, values);
  };
  return Object.fromEntries(Object.entries(inputs).map(([name, tensor]) => [name, absolute(name, tensor)]));
}

function absoluteAttributes(attributes: Attributes, keyLength: number): Attributes {
  const { scale, bias = 0, bias_mode = 'none' } = attributes;
  const count = bias_mode === 'none' ? 0 : Math.log(Math.max(keyLength, 1));
  return {
    ...attributes,
    ...(scale !== undefined && { scale: Math.abs(scale) }),
    bias: Math.abs(bias) + count,
    bias_mode: 'none',
    softcap: 0,
    normalize: false,
  };
}
