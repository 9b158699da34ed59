/**
 * The portable form of the operator: a model-local function of the same name whose body is standard ONNX operators, so
 * that a runtime without this package still runs a converted model (slower, with an Nq x Nk intermediate).
 *
 * The body computes in float32 for every T and keeps what the operator promises: relative precision of very small
 * weights, zero for rows without visible keys, and no way for a NaN or Inf of a hidden key or value to reach Y. Attributes
 * come from the calling node. Arguments are not checked: that a body cannot express.
 */

import proto from 'onnx-proto';

import { FunctionBuilder, type Value } from './function-builder.js';
import {
  type FunctionFacts,
  functionFacts,
  type FunctionUse,
  isWritten,
  type Share,
} from './function-uses.js';
import {
  ATTRIBUTES,
  type Attributes,
  type BiasMode,
  DOMAIN,
  INPUTS,
  OP_TYPE,
  type InputName,
} from './schema.js';

export { FunctionRefusal, type FunctionUse, neutralInput } from './function-uses.js';

const { AttributeProto, FunctionProto, OperatorSetIdProto } = proto.onnx;
const AttributeType = proto.onnx.AttributeProto.AttributeType;

/** Added to a sum of weights it keeps 0 / 0 from being asked, and changes no sum above 2^-100. */
const SMALLEST_SUM = 2 ** -126;

const LARGEST_FLOAT = 3.4028234663852886e38;

/**
 * The one function that serves all SigmoidAttention nodes of a model with the given version of the default operator set
 * (7 or more; ONNX wants IR version 8 or more for a model that holds functions). Throws a FunctionRefusal when the nodes
 * cannot share one body.
 */
export function functionFor(uses: readonly FunctionUse[], opset: number): proto.onnx.FunctionProto {
  const facts = functionFacts(uses, opset);
  const lastInput = INPUTS.findLastIndex(({ name, optional }) => !optional || facts.inputs.has(name));
  return FunctionProto.create({
    name: OP_TYPE,
    domain: DOMAIN,
    input: INPUTS.slice(0, lastInput + 1).map(({ name }) => name),
    output: facts.presents ? ['Y', 'present_key', 'present_value'] : ['Y'],
    attribute: ATTRIBUTES.map(({ name }) => name).filter((name) => facts.written.has(name)),
    opsetImport: [OperatorSetIdProto.create({ domain: '', version: opset })],
    node: new Body(facts).nodes(),
    docString: `${OP_TYPE} in standard operators, for calls of this form: ${JSON.stringify({
      ...facts,
      inputs: [...facts.inputs],
      written: undefined,
      attributes: undefined,
    })}`,
  });
}

/**
 * The attributes of a SigmoidAttention node, every default written out: a function's defaults do not reach a kernel, and
 * a kernel's do not reach a function. Those without a fixed default (scale, q_num_heads, kv_num_heads) are left out where
 * they are undefined; leave scale undefined on all nodes of a model or on none.
 */
export function nodeAttributes(attributes: Attributes): proto.onnx.AttributeProto[] {
  return ATTRIBUTES.filter((spec) => isWritten(spec, attributes)).map(({ name, type, default: fallback }) => {
    const value = attributes[name] ?? fallback;
    if (type === 'string')
      return AttributeProto.create({
        name,
        type: AttributeType.STRING,
        s: new TextEncoder().encode(String(value)),
      });
    return type === 'int'
      ? AttributeProto.create({ name, type: AttributeType.INT, i: Number(value) })
      : AttributeProto.create({ name, type: AttributeType.FLOAT, f: Number(value) });
  });
}

/** Sizes of the call as int64 values of shape [1]. */
interface Sizes {
  batch: Value;
  queryHeads: Value;
  kvHeads: Value;
  queryLength: Value;
  keyLength: Value;
  headSize: Value;
  valueHeadSize: Value;
}

/** Where the rows and keys are: float32, broadcastable to [B,Hq,Nq,Nk]. */
interface Positions {
  /** i + offset: [.,1,Nq,1]. */
  diagonal: Value;
  /** j: [Nk]. */
  key: Value;
  /** The last and the first position that a row sees under causal and window; undefined: unbounded. */
  last: Value | undefined;
  first: Value | undefined;
  /** nonpad_kv_seqlen, [B,1,1,1]. */
  valid: Value | undefined;
}

class Body {
  readonly #facts: FunctionFacts;
  readonly #f: FunctionBuilder;

  constructor(facts: FunctionFacts) {
    this.#facts = facts;
    this.#f = new FunctionBuilder(facts.opset);
  }

  nodes(): proto.onnx.NodeProto[] {
    const f = this.#f;
    const query = this.#float(this.#headsFirst('Q', 'q_num_heads'));
    const presentKey = this.#withPast('past_key', this.#headsFirst('K', 'kv_num_heads'));
    const presentValue = this.#withPast('past_value', this.#headsFirst('V', 'kv_num_heads'));
    if (this.#facts.presents) {
      f.output('present_key', presentKey);
      f.output('present_value', presentValue);
    }
    const sizes = this.#sizes(query, presentKey, presentValue);
    const positions = this.#positions(sizes);

    const scores = this.#softcapped(this.#scores(this.#scaled(query), this.#float(presentKey), sizes));
    const penalty = this.#penalty(positions);
    const weights = this.#weights(this.#logits(scores, penalty, positions, sizes), penalty);
    const rows = this.#contract(weights, this.#float(presentValue), sizes, penalty !== undefined);
    const y = this.#given('head_gain')
      ? f.apply('Mul', this.#normalized(rows, weights), f.unsqueeze('head_gain', [1, 2]))
      : this.#normalized(rows, weights);
    f.output('Y', this.#inT(this.#headsInside(y, sizes)));
    return f.liveNodes();
  }

  #given(name: InputName): boolean {
    return this.#facts.inputs.has(name);
  }

  #float(value: Value): Value {
    return this.#facts.type === 'float' ? value : this.#f.cast(value, 'float');
  }

  #inT(value: Value): Value {
    const { type } = this.#facts;
    if (type === 'float') return value;
    return type === 'mixed' ? this.#f.apply('CastLike', value, 'Q') : this.#f.cast(value, type);
  }

  /** A float attribute as a scalar. */
  #number(name: 'scale' | 'bias' | 'softcap'): Value {
    return this.#facts.opset >= 12
      ? this.#f.attribute(name, 'float')
      : this.#f.scalar(this.#facts.attributes[name] ?? 0);
  }

  /** An int attribute as an int64 scalar. */
  #integer(
    name: 'is_causal' | 'left_window_size' | 'right_window_size' | 'normalize' | HeadsAttribute,
  ): Value {
    return this.#facts.opset >= 12
      ? this.#f.attribute(name, 'int')
      : this.#f.ints(Number(this.#facts.attributes[name] ?? 0));
  }

  /** Size of one axis, int64 of shape [1]. */
  #size(value: Value, axis: number): Value {
    return this.#f.apply('Gather', this.#f.apply('Shape', value), this.#f.ints([axis]));
  }

  /** A size as a float32 scalar. */
  #count(size: Value): Value {
    const scalar = this.#f.apply('Gather', size, this.#f.ints(0));
    return this.#f.cast(scalar, 'float');
  }

  /** [B,H,N,D] of an input that is that already, or [B,N,H*D]. */
  #headsFirst(input: 'Q' | 'K' | 'V', headsAttribute: HeadsAttribute): Value {
    if (this.#facts.rank === 4) return input;
    const f = this.#f;
    const heads = f.unsqueeze(this.#integer(headsAttribute), [0]);
    const headSize = f.apply('Div', this.#size(input, 2), heads);
    const shape = f.concat(0, this.#size(input, 0), this.#size(input, 1), heads, headSize);
    return f.transpose(f.apply('Reshape', input, shape), [0, 2, 1, 3]);
  }

  /** Y in the rank of Q. */
  #headsInside(y: Value, { batch, queryLength, queryHeads, valueHeadSize }: Sizes): Value {
    if (this.#facts.rank === 4) return y;
    const f = this.#f;
    const shape = f.concat(0, batch, queryLength, f.apply('Mul', queryHeads, valueHeadSize));
    return f.apply('Reshape', f.transpose(y, [0, 2, 1, 3]), shape);
  }

  #withPast(past: 'past_key' | 'past_value', fresh: Value): Value {
    return this.#given(past) ? this.#f.concat(2, past, fresh) : fresh;
  }

  #sizes(query: Value, key: Value, value: Value): Sizes {
    return {
      batch: this.#size(query, 0),
      queryHeads: this.#size(query, 1),
      kvHeads: this.#size(key, 1),
      queryLength: this.#size(query, 2),
      keyLength: this.#size(key, 2),
      headSize: this.#size(query, 3),
      valueHeadSize: this.#size(value, 3),
    };
  }

  /** scale * head_scale[h] * Q */
  #scaled(query: Value): Value {
    const f = this.#f;
    const scaled = this.#facts.explicitScale
      ? f.apply('Mul', query, this.#number('scale'))
      : f.apply('Div', query, f.apply('Sqrt', this.#count(this.#size(query, 3))));
    return this.#given('head_scale') ? f.apply('Mul', scaled, f.unsqueeze('head_scale', [1, 2])) : scaled;
  }

  /** Q K^T, [B,Hq,Nq,Nk]. Query heads that share a kv head are one taller matrix, so that K is never repeated. */
  #scores(query: Value, key: Value, sizes: Sizes): Value {
    const f = this.#f;
    const stacked = f.apply('Reshape', query, this.#stackedShape(sizes, sizes.headSize));
    const product = f.apply('MatMul', stacked, f.transpose(key, [0, 1, 3, 2]));
    const { batch, queryHeads, queryLength, keyLength } = sizes;
    return f.apply('Reshape', product, f.concat(0, batch, queryHeads, queryLength, keyLength));
  }

  /** [B,Hkv,Hq/Hkv*Nq,width]. Explicit sizes, no -1: those fail for empty tensors. */
  #stackedShape({ batch, queryHeads, kvHeads, queryLength }: Sizes, width: Value): Value {
    const f = this.#f;
    const rows = f.apply('Mul', f.apply('Div', queryHeads, kvHeads), queryLength);
    return f.concat(0, batch, kvHeads, rows, width);
  }

  #softcapped(scores: Value): Value {
    const f = this.#f;
    const { softcap } = this.#facts;
    if (softcap === 'never') return scores;
    const cap = this.#number('softcap');
    if (softcap === 'always') return f.apply('Mul', f.apply('Tanh', f.apply('Div', scores, cap)), cap);
    const isCapped = f.apply('Less', f.scalar(0), cap);
    const divisor = f.apply('Where', isCapped, cap, f.scalar(1));
    const capped = f.apply('Mul', f.apply('Tanh', f.apply('Div', scores, divisor)), cap);
    return f.apply('Where', isCapped, capped, scores);
  }

  #positions({ queryLength, keyLength }: Sizes): Positions {
    const f = this.#f;
    const valid = this.#given('nonpad_kv_seqlen')
      ? f.unsqueeze(f.cast('nonpad_kv_seqlen', 'float'), [1, 2, 3])
      : undefined;
    const row = f.unsqueeze(f.range(queryLength), [1]);
    let diagonal = row;
    if (this.#given('past_key')) diagonal = f.apply('Add', row, this.#count(this.#size('past_key', 2)));
    else if (valid !== undefined)
      diagonal = f.apply('Add', row, f.apply('Sub', valid, this.#count(queryLength)));
    const left = this.#reach('left_window_size', this.#facts.leftWindow);
    const right = this.#smaller(
      this.#reach('right_window_size', this.#facts.rightWindow),
      this.#causalReach(),
    );
    return {
      diagonal,
      key: f.range(keyLength),
      last: right && f.apply('Add', diagonal, right),
      first: left && f.apply('Sub', diagonal, left),
      valid,
    };
  }

  /** A window size as a float32 scalar, infinite where it is -1. */
  #reach(name: 'left_window_size' | 'right_window_size', share: Share): Value | undefined {
    if (share === 'never') return undefined;
    const f = this.#f;
    const size = f.cast(this.#integer(name), 'float');
    if (share === 'always') return size;
    return f.apply('Where', f.apply('Less', size, f.scalar(0)), f.scalar(Infinity), size);
  }

  #causalReach(): Value | undefined {
    const f = this.#f;
    if (this.#facts.causal === 'never') return undefined;
    if (this.#facts.causal === 'always') return f.scalar(0);
    const isCausal = f.apply('Less', f.scalar(0), f.cast(this.#integer('is_causal'), 'float'));
    return f.apply('Where', isCausal, f.scalar(0), f.scalar(Infinity));
  }

  #smaller(a: Value | undefined, b: Value | undefined): Value | undefined {
    return a !== undefined && b !== undefined ? this.#f.apply('Min', a, b) : (a ?? b);
  }

  /** attn_mask as an addend, -Inf wherever the key takes no part; undefined when all keys take part in all calls. */
  #penalty({ key, last, first, valid }: Positions): Value | undefined {
    const f = this.#f;
    const hidden = f.scalar(-Infinity);
    let penalty = this.#maskAddend();
    if (last !== undefined)
      penalty = f.apply('Where', f.apply('Less', last, key), hidden, penalty ?? f.scalar(0));
    if (first !== undefined)
      penalty = f.apply('Where', f.apply('Less', key, first), hidden, penalty ?? f.scalar(0));
    if (valid !== undefined)
      penalty = f.apply('Where', f.apply('Less', key, valid), penalty ?? f.scalar(0), hidden);
    return penalty;
  }

  #maskAddend(): Value | undefined {
    const f = this.#f;
    const { mask } = this.#facts;
    if (mask === 'none') return undefined;
    if (mask === 'bool') return f.apply('Where', 'attn_mask', f.scalar(0), f.scalar(-Infinity));
    const number = f.cast('attn_mask', 'float');
    if (mask === 'number') return number;
    // Only a bool tensor turns 2 into 1.
    const two = f.cast(f.apply('CastLike', f.scalar(2), 'attn_mask'), 'float');
    const isBool = f.apply('Less', two, f.scalar(1.5));
    const fromBool = f.apply(
      'Where',
      f.apply('Less', number, f.scalar(0.5)),
      f.scalar(-Infinity),
      f.scalar(0),
    );
    return f.apply('Where', isBool, fromBool, number);
  }

  /** S + attn_mask + alibi + bias + head_bias[h] + bias_mode term */
  #logits(scores: Value, penalty: Value | undefined, positions: Positions, sizes: Sizes): Value {
    const f = this.#f;
    const addends: Value[] = [];
    if (this.#facts.biased) addends.push(this.#number('bias'));
    if (this.#given('head_bias')) addends.push(this.#perRow('head_bias'));
    const term = this.#biasModeTerm(positions, sizes);
    if (term !== undefined) addends.push(term);
    if (this.#given('alibi_slopes')) {
      const distance = f.apply('Abs', f.apply('Sub', positions.diagonal, positions.key));
      addends.push(f.apply('Neg', f.apply('Mul', this.#perRow('alibi_slopes'), distance)));
    }
    if (penalty !== undefined) addends.push(penalty);
    if (addends.length === 0) return scores;
    return f.apply(
      'Add',
      scores,
      addends.reduce((sum, addend) => f.apply('Add', sum, addend)),
    );
  }

  /** [Hq] or [B,Hq] as [.,Hq,1,1]. */
  #perRow(input: 'head_bias' | 'alibi_slopes'): Value {
    return this.#f.withTwoMoreAxes(input);
  }

  #biasModeTerm(positions: Positions, sizes: Sizes): Value | undefined {
    const f = this.#f;
    const { biasModes } = this.#facts;
    const terms = new Map<BiasMode, Value>();
    for (const mode of biasModes) {
      const count = this.#keysCounted(mode, positions, sizes);
      // A row that counts no key has no weight either; 1 keeps its term finite.
      if (count !== undefined)
        terms.set(mode, f.apply('Neg', f.apply('Log', f.apply('Max', count, f.scalar(1)))));
    }
    if (biasModes.length === 1) return terms.get(biasModes[0]!);
    const counts = f.wordCounts(f.unsqueeze(f.attribute('bias_mode', 'string'), [0]), biasModes);
    const selected = [...terms].map(([mode, term]) =>
      f.apply('Mul', term, f.apply('Gather', counts, f.ints(biasModes.indexOf(mode)))),
    );
    return selected.reduce((sum, term) => f.apply('Add', sum, term));
  }

  #keysCounted(mode: BiasMode, positions: Positions, { keyLength }: Sizes): Value | undefined {
    const f = this.#f;
    const total = (): Value => this.#count(keyLength);
    switch (mode) {
      case 'none':
        return undefined;
      case 'neg_log_total':
        return total();
      case 'neg_log_valid':
        return positions.valid ?? total();
      case 'neg_log_visible': {
        let end = total();
        if (positions.last !== undefined)
          end = f.apply('Min', end, f.apply('Add', positions.last, f.scalar(1)));
        if (positions.valid !== undefined) end = f.apply('Min', end, positions.valid);
        if (positions.first === undefined) return end;
        return f.apply('Sub', end, f.apply('Max', positions.first, f.scalar(0)));
      }
    }
  }

  /**
   * sigmoid(L) as 1 / (1 + exp(-L)) or exp(L) / (1 + exp(L)), whichever exponential is small: both keep the relative
   * precision of exp, which Sigmoid kernels lose for very negative L. Exactly 0 where the penalty is -Inf.
   */
  #weights(logits: Value, penalty: Value | undefined): Value {
    const f = this.#f;
    const size = f.apply('Abs', logits);
    const small = f.apply('Exp', f.apply('Neg', size));
    if (f.opset < 9) {
      // There is no Where yet, and no key is hidden: (L - |L|) / 2 is the smaller of L and 0.
      const below = f.apply('Mul', f.apply('Sub', logits, size), f.scalar(0.5));
      return f.apply('Div', f.apply('Exp', below), f.apply('Add', f.scalar(1), small));
    }
    const numerator = f.apply('Where', f.apply('Less', logits, f.scalar(0)), small, f.scalar(1));
    const weights = f.apply('Div', numerator, f.apply('Add', f.scalar(1), small));
    if (penalty === undefined) return weights;
    const hidden = f.apply('Less', penalty, f.scalar(-LARGEST_FLOAT));
    return f.apply('Where', hidden, f.scalar(0), weights);
  }

  /** W V, [B,Hq,Nq,Dv]. Where keys may be hidden, values that are not finite must not meet their zero weights. */
  #contract(weights: Value, value: Value, sizes: Sizes, mayHide: boolean): Value {
    const f = this.#f;
    const { batch, queryHeads, queryLength, keyLength, valueHeadSize } = sizes;
    const stacked = f.apply('Reshape', weights, this.#stackedShape(sizes, keyLength));
    const rows = mayHide ? this.#contractVisible(stacked, value) : f.apply('MatMul', stacked, value);
    return f.apply('Reshape', rows, f.concat(0, batch, queryHeads, queryLength, valueHeadSize));
  }

  #contractVisible(weights: Value, value: Value): Value {
    const f = this.#f;
    // v - v is NaN exactly where v is not finite, and any NaN makes the sum differ from 0.
    const difference = f.apply('Sub', value, value);
    const zero = f.scalar(0);
    return f.choose(
      f.equal(f.sumOfAll(difference), zero),
      (branch) => branch.apply('MatMul', weights, value),
      (branch) => contractNonFinite(branch, weights, value, difference, zero),
    );
  }

  /** Divides each row of Y by the sum of its weights; a row whose sum is 0 stays 0. */
  #normalized(y: Value, weights: Value): Value {
    const f = this.#f;
    const { normalize } = this.#facts;
    if (normalize === 'never') return y;
    const sum = f.sumOfRows(weights);
    if (f.opset < 9) return f.apply('Div', y, f.apply('Add', sum, f.scalar(SMALLEST_SUM)));
    const one = f.scalar(1);
    const divisor = f.apply('Where', f.equal(sum, f.scalar(0)), one, sum);
    if (normalize === 'always') return f.apply('Div', y, divisor);
    const isNormalized = f.apply('Less', f.scalar(0), f.cast(this.#integer('normalize'), 'float'));
    return f.apply('Div', y, f.apply('Where', isNormalized, divisor, one));
  }
}

type HeadsAttribute = 'q_num_heads' | 'kv_num_heads';

/** W V where every value with a weight of 0 is left out, and infinities and NaNs with another weight arrive as such. */
function contractNonFinite(
  f: FunctionBuilder,
  weights: Value,
  value: Value,
  difference: Value,
  zero: Value,
): Value {
  const one = f.scalar(1);
  const finite = f.apply('Where', f.equal(difference, zero), value, zero);
  const takesPart = f.apply('Where', f.equal(weights, zero), zero, one);
  const ifAny = (where: Value, arrives: number): Value => {
    const indicator = f.apply('Where', where, one, zero);
    const count = f.apply('MatMul', takesPart, indicator);
    return f.apply('Where', f.apply('Less', zero, count), f.scalar(arrives), zero);
  };
  const largest = f.scalar(LARGEST_FLOAT);
  const smallest = f.scalar(-LARGEST_FLOAT);
  const isNumber = f.equal(value, value);
  const nan = f.apply('MatMul', takesPart, f.apply('Where', isNumber, zero, one));
  return [
    ifAny(f.apply('Less', largest, value), Infinity),
    ifAny(f.apply('Less', value, smallest), -Infinity),
    f.apply('Where', f.apply('Less', zero, nan), f.scalar(NaN), zero),
  ].reduce((sum, term) => f.apply('Add', sum, term), f.apply('MatMul', weights, finite));
}
