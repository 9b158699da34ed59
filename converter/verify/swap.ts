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

const RESHAPING: ReadonlySet<string> = new Set(['Unsqueeze', 'Reshape', 'Identity', 'Cast']);

/** Guards of a denominator against 0. */
const GUARDING: ReadonlySet<string> = new Set(['Add', 'Max', 'Clip', 'Expand', 'Reciprocal']);

/** Operators between the products that keep the layout of the scores. */
const ELEMENTWISE: ReadonlySet<string> = new Set(
  'Add Sub Mul Div Where Max Min Clip Neg Tanh Cast Identity Dropout Softmax Exp Reciprocal'.split(' '),
);

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
    const { headScale, headBias, headGain, rowQuery, rowMoments } = this.swap.parameters;
    const { keyLength } = site;
    if (typeof keyLength === 'number' && keyLength !== this.swap.scores.dims[this.#keyAxis])
      throw new SwapRefusal(`the keys of site ${site.name} lie on several axes of its scores`);
    this.#refuseRowMaximum();
    this.#refuseRowSum();
    const result = new Map<GraphNode, readonly Node[]>();
    const centres = this.swap.parameters.centreScores === true;
    let rowTerm: string | null = null;
    if (centres || rowQuery || rowMoments || headScale?.some((value) => value !== 1)) {
      const product = this.#siteNode(0);
      const scores = product.outputs[0]!;
      const plain = `${this.prefix}_scores`;
      rowTerm = this.#rowTerm(product, plain);
      const moved = centres ? this.#node('Sub', [plain, this.#meanOverKeys(plain)]) : plain;
      const scaled = headScale ? this.#perHead('Mul', moved, headScale) : moved;
      this.#rename(scaled === plain ? this.#node('Identity', [plain]) : scaled, scores);
      result.set(product, [renamedOutput(this.model, product, plain), ...this.#nodes.splice(0)]);
    }
    const activation = graph.producer(site.values.weights!);
    if (!activation) throw new SwapRefusal(`site ${site.name}: its activation is not in the main graph`);
    const isPower = activation.inputs.some((input) => graph.producer(input)?.opType === 'Pow');
    if (isPower) throw new SwapRefusal(`site ${site.name} is a softmax to a base other than e`);
    let logits = site.values.scores!;
    const bias = Number(attributes['bias'] ?? 0);
    if (bias !== 0) logits = this.#node('Add', [logits, this.#scalar(bias)]);
    if (headBias) logits = this.#perHead('Add', logits, headBias);
    if (rowTerm !== null) logits = this.#node('Add', [logits, rowTerm]);
    const mode = String(attributes['bias_mode'] ?? 'none');
    if (mode !== 'none') logits = this.#node('Add', [logits, this.#negLog(mode)]);
    const normalize = attributes['normalize'] === 1;
    let weights = normalize ? this.#preciseSigmoid(logits) : this.#node('Sigmoid', [logits]);
    if (normalize) {
      const sum = this.#sumOverKeys(weights);
      weights = this.#node('Div', [weights, this.#node('Max', [sum, this.#scalar(this.#tiny())])]);
    }
    if (headGain) weights = this.#perHead('Mul', weights, headGain);
    const gained = weights;
    if (this.swap.parameters.centreValues) weights = this.#filledUp(weights);
    this.#rename(weights === gained ? this.#node('Identity', [gained]) : weights, site.values.weights!);
    result.set(activation, this.#nodes.splice(0));
    this.#shiftOutput(gained, result);
    return result;
  }

  /** Nodes at the ends of the site: 0, the score product; -1, the value product. */
  #siteNode(place: 0 | -1): GraphNode {
    const { site } = this.swap.replacement;
    const label = site.nodes.at(place);
    const found = this.model.graph.nodes.find((node) => node.name === label || node.outputs[0] === label);
    if (!found) throw new SwapRefusal(`site ${site.name}: its products are not in the main graph`);
    return found;
  }

  /** A row's largest score, subtracted for the sake of softmax, would count in a sigmoid. */
  #refuseRowMaximum(): void {
    const { graph } = this.model;
    const { site } = this.swap.replacement;
    const labels = new Set(site.nodes);
    const isMaximum = (value: string): boolean => {
      const node = graph.producer(value);
      if (node && RESHAPING.has(node.opType)) return isMaximum(node.inputs[0]!);
      return node?.opType === 'ReduceMax';
    };
    const subtracts = graph.nodes.some(
      ({ name, outputs, opType, inputs }) =>
        opType === 'Sub' && (labels.has(name) || labels.has(outputs[0]!)) && isMaximum(inputs[1]!),
    );
    if (subtracts) throw new SwapRefusal(`site ${site.name} subtracts the largest score of each row`);
  }

  /** Weights divided by their sum, which is 1 for softmax, would stay normalised with a sigmoid. */
  #refuseRowSum(): void {
    const { graph } = this.model;
    const { site } = this.swap.replacement;
    const labels = new Set(site.nodes);
    const activation = graph.producer(site.values.weights!);
    const isSum = (value: string): boolean => {
      const node = graph.producer(value);
      if (node && (RESHAPING.has(node.opType) || GUARDING.has(node.opType))) return node.inputs.some(isSum);
      return node?.opType === 'ReduceSum' || node?.opType === 'ReduceL1';
    };
    const divides = graph.nodes.some((node) => {
      if (node === activation || !(labels.has(node.name) || labels.has(node.outputs[0]!))) return false;
      return ['Div', 'Mul'].includes(node.opType) && isSum(node.inputs[1]!);
    });
    if (divides) throw new SwapRefusal(`site ${site.name} divides its weights by their sum once more`);
  }

  /** Layouts in which row terms and shifts can be spelled: matrix products of queries and keys, and of weights and values. */
  #checkLayout(product: GraphNode): void {
    const { site } = this.swap.replacement;
    const isPlain = site.nodes.slice(1, -1).every((label) => {
      const node = this.model.graph.nodes.find((own) => own.name === label || own.outputs[0] === label);
      return node !== undefined && ELEMENTWISE.has(node.opType);
    });
    if (product.opType !== 'MatMul' || this.#keyAxis < this.#queryAxis || !isPlain) {
      throw new SwapRefusal(`site ${site.name}: its layout has no place for a number per row`);
    }
  }

  /** The number that each row's scores get, `null` where the site has none. */
  #rowTerm(product: GraphNode, plain: string): string | null {
    const { rowQuery, rowMoments } = this.swap.parameters;
    if (!rowQuery && !rowMoments) return null;
    this.#checkLayout(product);
    const { operands, attributes, site } = this.swap.replacement;
    if (operands === null)
      throw new SwapRefusal(`site ${site.name}: its operands hold more than queries and keys`);
    const terms: string[] = [];
    if (rowQuery) {
      const factors = rowQuery.map((row) => row.map((value) => value / operands.query));
      terms.push(this.#sumOfLast(this.#perChannel('Mul', product.inputs[0]!, factors)));
    }
    if (rowMoments) {
      const factor = Number(attributes['scale']) / (operands.query * operands.key);
      const multiple = (place: number): number[] => rowMoments.map((own) => own[place] ?? 0);
      const scores = this.#node('Mul', [plain, this.#scalar(factor)]);
      const isCausal = attributes['is_causal'] === 1;
      const mean = isCausal ? this.#meanUpToOwn(scores) : this.#meanOverKeys(scores);
      terms.push(this.#perHead('Mul', mean, multiple(0)));
      const spreads = [...multiple(1), ...multiple(2)].some((value) => value !== 0);
      if (spreads && !isCausal) {
        const apart = this.#node('Sub', [scores, mean]);
        const variance = this.#meanOverKeys(this.#node('Mul', [apart, apart]));
        terms.push(this.#perHead('Mul', variance, multiple(1)));
        terms.push(this.#perHead('Mul', this.#node('Sqrt', [variance]), multiple(2)));
      }
    }
    return terms.reduce((a, b) => this.#node('Add', [a, b]));
  }

  /** Adds what the shifted values and the output's own shift give to the value product. */
  #shiftOutput(weights: string, result: Map<GraphNode, readonly Node[]>): void {
    const { valueShift, outputShift } = this.swap.parameters;
    if (!valueShift && !outputShift) return;
    const product = this.#siteNode(-1);
    this.#checkLayout(product);
    const plain = `${this.prefix}_output`;
    let output = plain;
    if (valueShift) {
      const filled = this.#perChannel('Mul', this.#sumOverKeys(weights), valueShift);
      output = this.#node('Add', [output, filled]);
    }
    if (outputShift) output = this.#perChannel('Add', output, outputShift);
    this.#rename(output, product.outputs[0]!);
    result.set(product, [renamedOutput(this.model, product, plain), ...this.#nodes.splice(0)]);
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

  /** Mean over keys 0 to i of row i. */
  #meanUpToOwn(scores: string): string {
    if (this.#opset < 14) throw new SwapRefusal(`opset ${this.#opset} has no triangular part of a matrix`);
    const lower = this.#node('Trilu', [scores], [{ name: 'upper', type: 2, i: 0 }]);
    const shape = this.#node('Shape', [scores]);
    const rows = this.#node('Gather', [shape, this.#ints([this.#queryAxis], [])]);
    const one = this.#ints([1], []);
    const positions = this.#node('Range', [one, this.#node('Add', [rows, one]), one]);
    const counts = this.#node('Reshape', [this.#cast(positions), this.#ints([-1, 1], [2])]);
    return this.#node('Div', [this.#sumOverKeys(lower), counts]);
  }

  #sumOfLast(value: string): string {
    if (this.#opset >= 13) return this.#node('ReduceSum', [value, this.#ints([-1], [1])]);
    const last = this.swap.scores.dims.length - 1;
    return this.#node('ReduceSum', [value], [{ name: 'axes', type: 7, ints: [last] }]);
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
    if (numbers.every((number) => number === numbers[0]))
      return this.#node(op, [value, this.#scalar(numbers[0]!)]);
    return this.#perChannel(
      op,
      value,
      numbers.map((number) => [number]),
    );
  }

  /** Applies numbers `[heads][channels]` to a tensor in the layout of the scores whose last axis holds the channels. */
  #perChannel(op: string, value: string, numbers: readonly (readonly number[])[]): string {
    const { dims } = this.swap.scores;
    const [heads, channels] = [numbers.length, numbers[0]!.length];
    const rank = dims.length;
    const outer = dims.slice(0, rank - 2);
    const axes = outer.flatMap((dim, axis) => (dim === heads ? [axis] : []));
    const shapeWith = (axis: number): number[] =>
      dims.map((_, a) => (a === axis ? heads : a === rank - 1 ? channels : 1));
    if (rank > 4 && axes.length > 1) {
      throw new SwapRefusal(
        `site ${this.swap.replacement.site.name}: several axes of its scores [${dims.join(', ')}] are as long as it has heads`,
      );
    }
    // In rank 3 batch and heads share an axis, whose size in one run says nothing about others.
    if (heads === 1 || (axes.length > 0 && rank !== 3)) {
      const axis = rank === 4 && axes.includes(1) ? 1 : (axes[0] ?? -1);
      return this.#node(op, [value, this.#floats(numbers.flat(), shapeWith(axis))]);
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
      const applied = this.#node(op, [apart, this.#floats(numbers.flat(), [1, heads, 1, channels])]);
      const last = this.#node(
        'Gather',
        [this.#node('Shape', [applied]), this.#ints([2, 3], [2])],
        [{ name: 'axis', type: 2, i: 0 }],
      );
      const joined = this.#node('Concat', [this.#ints([-1], [1]), last], [{ name: 'axis', type: 2, i: 0 }]);
      return this.#node('Reshape', [applied, joined]);
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
