/**
 * The original graph with only the activation of its replaced sites exchanged: softmax becomes the sigmoid that the
 * operator computes, spelled in standard operators where the softmax stood. It is what a converted model must equal, and
 * what goes back to a training framework.
 */
import proto from 'onnx-proto';
import { numberToBfloat16, numberToFloat16 } from '../../op/half.js';
import type { Replacement, SiteParameters } from '../conversion.js';
import { intAttribute, type GraphNode } from '../graph/node.js';
import type { Model } from '../onnx/model.js';
import type { Compared } from './compare.js';
import type { Variant } from './variant.js';

type Node = proto.onnx.INodeProto;
type Tensor = proto.onnx.ITensorProto;

/** A replaced site and the values that the operator got for it. */
export interface SwapSite {
  readonly replacement: Replacement;
  readonly parameters: SiteParameters;
  /** Scores of one run, for their type and layout. */
  readonly scores: Pick<Compared, 'type' | 'dims'>;
}

/** Why a site cannot be spelled with an exchanged activation. */
export class SwapRefusal extends Error {}

/** Sites whose activation can be exchanged in the main graph of the original. */
export function isSwappable({ site, inputs }: Replacement): boolean {
  return (
    site.kind === 'softmax' &&
    site.scope === '' &&
    site.values.scores !== null &&
    !('nonpad_kv_seqlen' in inputs)
  );
}

/** Nodes to exchange and constants to add. Throws a {@link SwapRefusal} where a site's layout does not allow it. */
export function swapActivations(
  model: Model,
  sites: readonly SwapSite[],
): Required<Pick<Variant, 'exchange' | 'initializers'>> {
  const exchange = new Map<GraphNode, readonly Node[]>();
  const initializers: Tensor[] = [];
  for (const [index, site] of sites.entries()) {
    const builder = new SwapBuilder(model, site, `sigmoid_${index}`);
    for (const [node, stand] of builder.exchange()) exchange.set(node, stand);
    initializers.push(...builder.initializers);
  }
  return { exchange, initializers };
}

const DATA_TYPES: Readonly<Record<string, number>> = { float32: 1, float16: 10, float64: 11, bfloat16: 16 };
const INT64 = 7;

class SwapBuilder {
  readonly initializers: Tensor[] = [];
  readonly #nodes: Node[] = [];
  readonly #opset: number;
  readonly #keyAxis: number;
  readonly #queryAxis: number;
  #count = 0;

  constructor(
    private readonly model: Model,
    private readonly swap: SwapSite,
    private readonly prefix: string,
  ) {
    this.#opset = model.opsets.get('') ?? 0;
    const rank = swap.scores.dims.length;
    this.#keyAxis = this.#softmaxAxis(rank);
    this.#queryAxis = this.#keyAxis === rank - 1 ? rank - 2 : rank - 1;
  }

  exchange(): Map<GraphNode, readonly Node[]> {
    const { graph } = this.model;
    const { site, attributes } = this.swap.replacement;
    const { headScale, headBias, headGain } = this.swap.parameters;
    const result = new Map<GraphNode, readonly Node[]>();
    const centres = this.swap.parameters.centreScores === true;
    if (centres || headScale?.some((value) => value !== 1)) {
      const product = graph.nodes.find(
        (node) => node.name === site.nodes[0] || node.outputs[0] === site.nodes[0],
      );
      if (!product) throw new SwapRefusal(`site ${site.name}: its score product is not in the main graph`);
      const scores = product.outputs[0]!;
      const plain = `${this.prefix}_scores`;
      const moved = centres ? this.#node('Sub', [plain, this.#meanOverKeys(plain)]) : plain;
      this.#rename(headScale ? this.#perHead('Mul', moved, headScale) : moved, scores);
      result.set(product, [renamedOutput(this.model, product, plain), ...this.#nodes.splice(0)]);
    }
    const activation = graph.producer(site.values.weights!);
    if (!activation) throw new SwapRefusal(`site ${site.name}: its activation is not in the main graph`);
    let logits = site.values.scores!;
    const bias = Number(attributes['bias'] ?? 0);
    if (bias !== 0) logits = this.#node('Add', [logits, this.#scalar(bias)]);
    if (headBias) logits = this.#perHead('Add', logits, headBias);
    const mode = String(attributes['bias_mode'] ?? 'none');
    if (mode !== 'none') logits = this.#node('Add', [logits, this.#negLog(mode)]);
    const normalize = attributes['normalize'] === 1;
    let weights = normalize ? this.#preciseSigmoid(logits) : this.#node('Sigmoid', [logits]);
    if (normalize) {
      const sum = this.#sumOverKeys(weights);
      weights = this.#node('Div', [weights, this.#node('Max', [sum, this.#scalar(this.#tiny())])]);
    }
    if (headGain) weights = this.#perHead('Mul', weights, headGain);
    if (this.swap.parameters.centreValues) weights = this.#filledUp(weights);
    this.#rename(weights, site.values.weights!);
    result.set(activation, this.#nodes.splice(0));
    return result;
  }

  /** What a row's weights lack of 1, spread evenly: the same as `W (V - mean) + mean`. */
  #filledUp(weights: string): string {
    const shape = this.#node('Shape', [weights]);
    const keys = this.#cast(this.#node('Gather', [shape, this.#ints([this.#keyAxis], [])]));
    const lack = this.#node('Sub', [this.#scalar(1), this.#sumOverKeys(weights)]);
    return this.#node('Add', [weights, this.#node('Div', [lack, keys])]);
  }

  /** 1 / (1 + exp(-x)): runtimes clamp the argument of Sigmoid, and normalised weights need its far tail. */
  #preciseSigmoid(logits: string): string {
    const exponential = this.#node('Exp', [this.#node('Neg', [logits])]);
    return this.#node('Reciprocal', [this.#node('Add', [exponential, this.#scalar(1)])]);
  }

  /** Smallest divisor: a row without any key gives 0, as the operator does. */
  #tiny(): number {
    return this.swap.scores.type === 'float16' ? 2 ** -14 : 1e-30;
  }

  #softmaxAxis(rank: number): number {
    const { site } = this.swap.replacement;
    const activation = this.model.graph.producer(site.values.weights!);
    if (activation?.opType !== 'Softmax' || this.#opset < 13) return rank - 1;
    const axis = intAttribute(activation, 'axis', -1);
    return axis < 0 ? axis + rank : axis;
  }

  /** -log of the number of keys, for bias_mode. */
  #negLog(mode: string): string {
    const { attributes, inputs } = this.swap.replacement;
    const shape = this.#node('Shape', [this.swap.replacement.site.values.scores!]);
    const keys = this.#node('Gather', [shape, this.#ints([this.#keyAxis], [])]);
    if (mode === 'neg_log_total' || mode === 'neg_log_valid') {
      return this.#node('Neg', [this.#node('Log', [this.#cast(keys)])]);
    }
    const queries = this.#node('Gather', [shape, this.#ints([this.#queryAxis], [])]);
    const zero = this.#ints([0], []);
    const one = this.#ints([1], []);
    const offset = 'past_key' in inputs ? this.#node('Sub', [keys, queries]) : zero;
    const asColumn = this.#ints([-1, 1], [2]);
    const asRow = this.#ints([1, -1], [2]);
    const keysLast = this.#keyAxis > this.#queryAxis;
    const j = this.#node('Reshape', [this.#node('Range', [zero, keys, one]), keysLast ? asRow : asColumn]);
    const range = this.#node('Add', [this.#node('Range', [zero, queries, one]), offset]);
    const i = this.#node('Reshape', [range, keysLast ? asColumn : asRow]);
    const distance = this.#node('Sub', [j, i]);
    const limits: string[] = [];
    const left = Number(attributes['left_window_size'] ?? -1);
    const right = Number(attributes['right_window_size'] ?? -1);
    if (attributes['is_causal'] === 1) limits.push(this.#node('Less', [distance, one]));
    if (right >= 0) limits.push(this.#node('Less', [distance, this.#ints([right + 1], [])]));
    if (left >= 0) limits.push(this.#node('Greater', [distance, this.#ints([-left - 1], [])]));
    if (limits.length === 0) return this.#node('Neg', [this.#node('Log', [this.#cast(keys)])]);
    const visible = limits.reduce((a, b) => this.#node('And', [a, b]));
    return this.#node('Neg', [this.#node('Log', [this.#sumOverKeys(this.#cast(visible), 2)])]);
  }

  #sumOverKeys(value: string, rank = this.swap.scores.dims.length): string {
    const axis = this.#keyAxis - this.swap.scores.dims.length;
    if (this.#opset >= 13) return this.#node('ReduceSum', [value, this.#ints([axis], [1])]);
    return this.#node('ReduceSum', [value], [{ name: 'axes', type: 7, ints: [axis + rank] }]);
  }

  #meanOverKeys(value: string): string {
    if (this.#opset >= 18) return this.#node('ReduceMean', [value, this.#ints([this.#keyAxis], [1])]);
    return this.#node('ReduceMean', [value], [{ name: 'axes', type: 7, ints: [this.#keyAxis] }]);
  }

  #cast(value: string): string {
    return this.#node('Cast', [value], [{ name: 'to', type: 2, i: this.#dataType() }]);
  }

  #dataType(): number {
    const type = DATA_TYPES[this.swap.scores.type];
    if (type === undefined) throw new SwapRefusal(`scores of type ${this.swap.scores.type}`);
    return type;
  }

  /** Applies one number a head to a tensor in the layout of the scores. */
  #perHead(op: string, value: string, numbers: readonly number[]): string {
    const { dims } = this.swap.scores;
    const heads = numbers.length;
    if (numbers.every((number) => number === numbers[0]))
      return this.#node(op, [value, this.#scalar(numbers[0]!)]);
    const rank = dims.length;
    const outer = dims.slice(0, rank - 2);
    const axes = outer.flatMap((dim, axis) => (dim === heads ? [axis] : []));
    if (axes.length > 0) {
      const axis = rank === 4 && axes.includes(1) ? 1 : axes[0]!;
      return this.#node(op, [
        value,
        this.#floats(
          numbers,
          dims.map((_, a) => (a === axis ? heads : 1)),
        ),
      ]);
    }
    if (rank === 3 && dims[0]! % heads === 0) {
      const shape = this.#node('Shape', [value]);
      const tail = this.#node('Gather', [shape, this.#ints([1, 2], [2])], [{ name: 'axis', type: 2, i: 0 }]);
      const split = this.#node(
        'Concat',
        [this.#ints([-1, heads], [2]), tail],
        [{ name: 'axis', type: 2, i: 0 }],
      );
      const apart = this.#node('Reshape', [value, split]);
      return this.#node('Reshape', [this.#node(op, [apart, this.#floats(numbers, [1, heads, 1, 1])]), shape]);
    }
    throw new SwapRefusal(
      `site ${this.swap.replacement.site.name}: ${heads} heads have no axis of their own in scores [${dims.join(', ')}]`,
    );
  }

  #node(opType: string, input: readonly string[], attribute: proto.onnx.IAttributeProto[] = []): string {
    const output = `${this.prefix}_${this.#count++}`;
    this.#nodes.push({ opType, name: output, input: [...input], output: [output], attribute });
    return output;
  }

  /** Lets the last node yield `name` in place of `value`. */
  #rename(value: string, name: string): void {
    for (const node of this.#nodes) if (node.output?.[0] === value) node.output = [name];
  }

  #scalar(value: number): string {
    return this.#floats([value], []);
  }

  #floats(values: readonly number[], dims: readonly number[]): string {
    const name = `${this.prefix}_${this.#count++}`;
    const dataType = this.#dataType();
    this.initializers.push({ name, dims: [...dims], dataType, rawData: encodeFloats(values, dataType) });
    return name;
  }

  #ints(values: readonly number[], dims: readonly number[]): string {
    const name = `${this.prefix}_${this.#count++}`;
    const rawData = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    this.initializers.push({ name, dims: [...dims], dataType: INT64, rawData });
    return name;
  }
}

function renamedOutput(model: Model, node: GraphNode, output: string): Node {
  const decoded = proto.onnx.NodeProto.decode(model.source.read(node.span.start, node.span.end));
  decoded.output = [output, ...decoded.output.slice(1)];
  return decoded;
}

function encodeFloats(values: readonly number[], dataType: number): Uint8Array {
  switch (dataType) {
    case DATA_TYPES['float16']:
      return new Uint8Array(Uint16Array.from(values, numberToFloat16).buffer);
    case DATA_TYPES['bfloat16']:
      return new Uint8Array(Uint16Array.from(values, numberToBfloat16).buffer);
    case DATA_TYPES['float64']:
      return new Uint8Array(Float64Array.from(values).buffer);
    default:
      return new Uint8Array(Float32Array.from(values).buffer);
  }
}
