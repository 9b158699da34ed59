/**
 * The stable codes with which the converter refuses a site, each with the sentence a reader sees. docs/reasons.md explains
 * them at length; a test holds the two together.
 */
export const REASONS = {
  'no-score-product': 'the activation is not fed by a product of queries and keys',
  'no-value-product': 'the activation does not feed a product with values',
  'linear-scores': 'the scores come from a layer with fixed weights, not from a product of queries and keys',
  'constant-keys': 'the keys are fixed weights of the model',
  'axis-mismatch': 'the activation normalises over one axis and the value product sums over another',
  'channel-attention': 'the weights are between channels, not between positions',
  'weights-used-elsewhere':
    'the attention weights are a model output or are used by another part of the model',
  'scores-used-elsewhere': 'the scores are a model output or are used by another part of the model',
  'weights-changed':
    'an operation between the activation and the value product has no counterpart in the operator',
  'scores-changed':
    'an operation between the score product and the activation has no counterpart in the operator',
  'mask-not-excluding': 'a mask replaces scores by a value that still leaves the key a weight',
  'softcap-after-mask': 'the soft cap is applied after a mask or bias',
  'attention-sink': 'an extra score without a value takes part in the normalisation',
  'softmax-plus-one': 'the denominator holds a term besides the weights',
  'mixed-weights': 'the weights are a mixture of several activations',
  layout: 'the axes of queries, keys and values cannot be matched to batch, head, position and channel',
  'shape-unknown': 'shapes that the conversion depends on cannot be inferred',
  'data-type': 'the operator has no kernel for the data type of the site',
  quantized: 'the site works on quantised tensors',
  'unsupported-attribute': 'the fused operator uses an attribute or input without a counterpart',
  'unsupported-outputs': 'the fused operator yields scores or weights',
  'score-range': "the scores lie too far apart for one bias a head to keep softmax's weights",
  mode: 'the chosen mode does not convert sites of this kind',
  filtered: 'the caller left this site out',
} as const;

export type ReasonCode = keyof typeof REASONS;
