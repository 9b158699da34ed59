/**
 * Chooses sizes for a model's symbolic dimensions and keeps one environment per choice. Where a choice turns out to be
 * impossible (a mask length that must be past plus present, a batch that was traced as 1), the symbol at fault is bound to
 * what the graph asks for and the model is worked out again.
 */
import type { Model } from '../onnx/model.js';
import { Environment, Types } from './environment.js';
import { FRESH_BASE } from './shape-rule.js';
import type { Graph, ValueInfo } from './graph.js';
import { DataType } from '../onnx/tensor.js';
import { isFloatType, uniformValue, type NumericTensor } from './numeric.js';

/** Size of one axis in every environment. */
export type Size = readonly number[];

/** Attempts to bind symbols to sizes that fit together, per environment. */
const MAX_REBINDINGS = 24;

/** Factors that two sizes of a fixed product may trade. */
const TRADED_FACTORS = [2, 3];

/** With more symbols than this a trade costs more than it is likely to tell. */
const MOST_TRADED = 2;

interface Choice {
  readonly batch: number;
  readonly lengths: readonly number[];
  /** Multiples of 32, so that an image survives the strides of a convolutional stem. */
  readonly pixels: readonly number[];
}

const CHOICES: readonly Choice[] = [
  { batch: 3, lengths: [11, 13, 19, 23, 31, 37, 43, 53, 61, 71], pixels: [352, 416, 608] },
  { batch: 5, lengths: [17, 29, 41, 47, 59, 67, 73, 79, 83, 89], pixels: [544, 736, 992] },
];

export class Knowledge {
  readonly environments: readonly Environment[];
  private readonly types = new Types();
  private readonly constants = new Map<Graph, Set<string>>();

  constructor(readonly model: Model) {
    this.types.infer(model.graph);
    this.findConstants(model.graph);
    const kinds = symbolKinds(model);
    const choices = kinds.size === 0 ? CHOICES.slice(0, 1) : CHOICES;
    this.environments = this.toldApart(choices.map((choice) => this.workOut(bind(kinds, choice), kinds)));
  }

  /** Sizes of a value's axes in every environment, or `null` where some environment cannot tell the rank. */
  sizes(graph: Graph, name: string): Size[] | null {
    const first = this.environments[0]!.dims(graph, name);
    if (first === null) return null;
    const out: number[][] = first.map((dim) => [dim]);
    for (const environment of this.environments.slice(1)) {
      const dims = environment.dims(graph, name);
      if (dims === null || dims.length !== out.length) return null;
      dims.forEach((dim, axis) => out[axis]!.push(dim));
    }
    return out;
  }

  type(graph: Graph, name: string): number {
    return this.types.of(graph, name);
  }

  /** Values in every environment; `null` when the value is not a matter of constants and shapes. */
  values(graph: Graph, name: string): NumericTensor[] | null {
    const out: NumericTensor[] = [];
    for (const environment of this.environments) {
      const value = environment.value(graph, name);
      if (value === null) return null;
      out.push(value);
    }
    return out;
  }

  /** The one number that every element has in every environment. */
  number(graph: Graph, name: string): number | null {
    let found: number | null = null;
    for (const environment of this.environments) {
      const value = uniformValue(environment.value(graph, name));
      if (value === null || (found !== null && value !== found)) return null;
      found = value;
    }
    return found;
  }

  /** The value follows from constants (and shapes) alone, however large it is. */
  isConstant(graph: Graph, name: string): boolean {
    if (this.constants.get(graph)?.has(name) === true) return true;
    if (graph.parent === null) return false;
    const home = graph.definer(name);
    return home !== null && (this.constants.get(home)?.has(name) ?? false);
  }

  private findConstants(graph: Graph): void {
    const names = new Set(graph.initializers.keys());
    this.constants.set(graph, names);
    for (const node of graph.ordered()) {
      for (const body of node.subgraphs) this.findConstants(body);
      if (node.subgraphs.length > 0 || node.opType.startsWith('Random')) continue;
      const isOfShape = node.domain === '' && (node.opType === 'Shape' || node.opType === 'Size');
      if (isOfShape || node.inputs.every((name) => name === '' || this.isConstant(graph, name))) {
        for (const name of node.outputs) names.add(name);
      }
    }
  }

  /** A further environment in which every length (not batch) symbol has the given size. */
  withLengths(size: number): Environment {
    const kinds = symbolKinds(this.model);
    const symbols = new Map<string, number>();
    for (const [symbol, kind] of kinds) symbols.set(symbol, kind === 'batch' ? 1 : size);
    return this.workOut(symbols, kinds);
  }

  private environment(symbols: ReadonlyMap<string, number>): Environment {
    const environment = new Environment(
      this.model,
      new Map(symbols),
      this.types,
      this.model.opsets.get('') ?? 0,
    );
    environment.infer(this.model.graph);
    return environment;
  }

  /**
   * Two sizes whose product the graph fixes (a batch and a length that were traced as one number of tokens) come out the same
   * in every environment, though each may vary against the other: then one environment trades a factor between them.
   */
  private toldApart(environments: readonly Environment[]): readonly Environment[] {
    const [first, second] = environments;
    if (first === undefined || second === undefined) return environments;
    if (first.mismatches.length > 0 || second.mismatches.length > 0) return environments;
    const fixed = [...second.symbols].filter(([symbol, size]) => first.symbols.get(symbol) === size);
    if (fixed.length > MOST_TRADED) return environments;
    for (const [larger, size] of fixed) {
      for (const [smaller, other] of fixed) {
        for (const factor of TRADED_FACTORS) {
          if (larger === smaller || other % factor !== 0 || other === factor) continue;
          const attempt = new Map(second.symbols).set(larger, size * factor).set(smaller, other / factor);
          const environment = this.environment(attempt);
          if (environment.mismatches.length === 0) return [first, environment];
        }
      }
    }
    return environments;
  }

  private workOut(symbols: Map<string, number>, kinds: ReadonlyMap<string, SymbolKind>): Environment {
    let best: Environment | null = null;
    let triedBatchOne = false;
    // Two mismatches may undo each other's binding forever.
    const seen = new Set<string>();
    for (let attempt = 0; attempt < MAX_REBINDINGS; attempt++) {
      const environment = this.environment(symbols);
      if (best === null || environment.mismatches.length < best.mismatches.length) best = environment;
      if (environment.mismatches.length === 0) return environment;
      const choice = [...symbols.values()].join();
      const isRepeated = seen.has(choice);
      seen.add(choice);
      if (!isRepeated && environment.mismatches.some(({ a, b }) => rebind(symbols, a, b))) continue;
      if (isRepeated && bindOther(symbols, environment, (attempt) => this.environment(attempt))) continue;
      if (bindToSum(symbols, environment, (attempt) => this.environment(attempt))) continue;
      if (bindTerm(symbols, environment, kinds, (attempt) => this.environment(attempt))) continue;
      if (triedBatchOne) break;
      triedBatchOne = true;
      for (const [symbol, kind] of kinds) if (kind === 'batch') symbols.set(symbol, 1);
    }
    return best!;
  }
}

/** Binds the symbol behind one of two sizes that must agree; false when neither is a symbol's. */
function rebind(symbols: Map<string, number>, a: number, b: number): boolean {
  if (!(a > 0 && b > 0) || a === b) return false;
  const entries = [...symbols].reverse();
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    if (to >= FRESH_BASE || from >= FRESH_BASE) continue;
    const exact = entries.find(([, size]) => size === from && size > 2);
    if (exact !== undefined) {
      symbols.set(exact[0], to);
      return true;
    }
  }
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    if (to >= FRESH_BASE || from >= FRESH_BASE) continue;
    const factor = entries.find(
      ([, size]) => size > 2 && from % size === 0 && Number.isInteger((to * size) / from),
    );
    if (factor !== undefined) {
      symbols.set(factor[0], (to * factor[1]) / from);
      return true;
    }
  }
  return false;
}

/** A `sample` is one of a waveform: ten times the pixels, for stems with strides of hundreds. */
type SymbolKind = 'batch' | 'length' | 'pixel' | 'sample';

/** One symbol may be the sum of two others (total = past + present) without the graph ever comparing them. */
function bindToSum(
  symbols: Map<string, number>,
  failed: Environment,
  workOut: (symbols: Map<string, number>) => Environment,
): boolean {
  if (symbols.size < 3 || symbols.size > 6) return false;
  const names = [...symbols.keys()];
  for (const total of names) {
    for (const [i, a] of names.entries()) {
      for (const b of names.slice(i + 1)) {
        if (a === total || b === total) continue;
        const attempt = new Map(symbols).set(total, symbols.get(a)! + symbols.get(b)!);
        if (workOut(attempt).mismatches.length < failed.mismatches.length) {
          symbols.set(total, attempt.get(total)!);
          return true;
        }
      }
    }
  }
  return false;
}

/** Of several symbols of one size, the one whose binding leaves fewer mismatches. */
function bindOther(
  symbols: Map<string, number>,
  failed: Environment,
  workOut: (symbols: Map<string, number>) => Environment,
): boolean {
  for (const { a, b } of failed.mismatches) {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      if (to >= FRESH_BASE || to <= 0) continue;
      for (const [symbol, size] of symbols) {
        if (size !== from || size <= 2) continue;
        if (workOut(new Map(symbols).set(symbol, to)).mismatches.length >= failed.mismatches.length) continue;
        symbols.set(symbol, to);
        return true;
      }
    }
  }
  return false;
}

/** A sum of two lengths may have to meet a fixed size (past + new is the width of a stored mask): one of them gives way. */
function bindTerm(
  symbols: Map<string, number>,
  failed: Environment,
  kinds: ReadonlyMap<string, SymbolKind>,
  workOut: (symbols: Map<string, number>) => Environment,
): boolean {
  const lengths = [...symbols].filter(([symbol]) => kinds.get(symbol) === 'length').reverse();
  for (const { a, b } of failed.mismatches) {
    for (const [sum, wanted] of [
      [a, b],
      [b, a],
    ] as const) {
      for (const [term, size] of lengths) {
        const rest = sum - size;
        const isSum = lengths.some(([other, otherSize]) => other !== term && otherSize === rest);
        if (!isSum || wanted <= rest || wanted >= FRESH_BASE) continue;
        const attempt = new Map(symbols).set(term, wanted - rest);
        if (workOut(attempt).mismatches.length >= failed.mismatches.length) continue;
        symbols.set(term, wanted - rest);
        return true;
      }
    }
  }
  return false;
}

function symbolKinds(model: Model): Map<string, SymbolKind> {
  const kinds = new Map<string, SymbolKind>();
  const hasConvolution = model.graph.nodes.some((node) => node.opType === 'Conv');
  const visit = (info: ValueInfo): void => {
    if (info.dims === null) return;
    const { dims } = info;
    const last = typeof dims.at(-1) !== 'number';
    dims.forEach((dim, axis) => {
      if (typeof dim === 'number') return;
      const symbol = dim ?? `${info.name}#${axis}`;
      const isPixel =
        hasConvolution && dims.length >= 3 && axis >= 2 && last && info.dataType !== DataType.int64;
      const isSample = hasConvolution && dims.length === 2 && axis === 1 && isFloatType(info.dataType);
      const kind: SymbolKind = axis === 0 ? 'batch' : isPixel ? 'pixel' : isSample ? 'sample' : 'length';
      const before = kinds.get(symbol);
      if (before === undefined || (before === 'batch' && kind !== 'batch')) kinds.set(symbol, kind);
    });
  };
  for (const input of model.graph.inputs) if (!model.graph.initializers.has(input.name)) visit(input);
  return kinds;
}

function bind(kinds: ReadonlyMap<string, SymbolKind>, choice: Choice): Map<string, number> {
  const out = new Map<string, number>();
  let lengths = 0;
  let pixels = 0;
  for (const [symbol, kind] of kinds) {
    if (kind === 'batch') out.set(symbol, choice.batch);
    else if (kind === 'sample') out.set(symbol, 10 * choice.pixels[pixels++ % choice.pixels.length]!);
    else if (kind === 'pixel') out.set(symbol, choice.pixels[pixels++ % choice.pixels.length]!);
    else out.set(symbol, choice.lengths[lengths++ % choice.lengths.length]!);
  }
  return out;
}
