/**
 * Products that sum over a shared axis, in one description whatever operator spells them: MatMul, Gemm, Einsum and the fused
 * forms of ONNX Runtime's optimiser. Letters name axes as in an Einsum equation.
 */
import { parseEquation } from '../graph/einsum.js';
import type { Knowledge, Size } from '../graph/knowledge.js';
import { floatAttribute, intAttribute, textAttribute, type GraphNode } from '../graph/node.js';
import { isOne, type AxisSpace, type Axis } from './layout.js';

export interface Contraction {
  readonly node: GraphNode;
  /** Letters of the two operands and of the result. */
  readonly operands: readonly [readonly string[], readonly string[]];
  readonly output: readonly string[];
  /** Factor on the product. */
  readonly alpha: number;
  /** A third operand (of Gemm) added with this factor. */
  readonly addend: { readonly name: string; readonly beta: number } | null;
}

const MATRIX_PRODUCTS: ReadonlySet<string> = new Set([
  ':MatMul',
  ':Gemm',
  ':Einsum',
  'com.microsoft:FusedMatMul',
  'com.microsoft:TransposeMatMul',
]);

export function isContraction(node: GraphNode): boolean {
  return MATRIX_PRODUCTS.has(`${node.domain}:${node.opType}`);
}

/** Describes the node as a contraction; `null` when it is none, or one that cannot be described. */
export function readContraction(node: GraphNode, knowledge: Knowledge): Contraction | null {
  if (!isContraction(node)) return null;
  const ranks = [0, 1].map((i) => {
    const name = node.inputs[i];
    return name === undefined ? undefined : knowledge.sizes(node.graph, name)?.length;
  });
  const [rankA, rankB] = ranks;
  if (rankA === undefined || rankB === undefined) return null;
  if (node.opType === 'Einsum') return readEinsum(node, rankA, rankB, knowledge);
  if (rankA < 2 || rankB < 2) return null;
  const transA = intAttribute(node, 'transA', 0) === 1;
  const transB = intAttribute(node, 'transB', 0) === 1;
  // These move an operand's first axis behind its batch axes before anything else.
  const frontA = intAttribute(node, 'transBatchA', 0) === 1;
  const frontB = intAttribute(node, 'transBatchB', 0) === 1;
  const batch = Array.from({ length: Math.max(rankA, rankB) - 2 }, (_, i) => `b${i}`);
  const batchOf = (rank: number): string[] => batch.slice(batch.length - (rank - 2));
  const letters = (rank: number, [row, column]: readonly [string, string], front: boolean): string[] =>
    front ? [row, ...batchOf(rank), column] : [...batchOf(rank), row, column];
  const addend =
    node.opType === 'Gemm' && node.inputs[2]
      ? { name: node.inputs[2], beta: floatAttribute(node, 'beta', 1) }
      : null;
  return {
    node,
    operands: [
      letters(rankA, transA ? ['k', 'm'] : ['m', 'k'], frontA),
      letters(rankB, transB ? ['n', 'k'] : ['k', 'n'], frontB),
    ],
    output: [...batch, 'm', 'n'],
    alpha: floatAttribute(node, 'alpha', 1),
    addend,
  };
}

function readEinsum(node: GraphNode, rankA: number, rankB: number, knowledge: Knowledge): Contraction | null {
  if (node.inputs.length !== 2) return null;
  const equation = parseEquation(textAttribute(node, 'equation', ''), [rankA, rankB]);
  if (equation === null) return null;
  const [a, b] = equation.inputs;
  const { output } = equation;
  const distinct = (letters: readonly string[]): boolean => new Set(letters).size === letters.length;
  if (a === undefined || b === undefined || !distinct(a) || !distinct(b) || !distinct(output)) return null;
  const summed = [...new Set([...a, ...b])].filter((letter) => !output.includes(letter));
  if (summed.length === 0) return null;
  // An axis of size 1 may be summed away on its own.
  const isSingle = (letters: readonly string[], operand: number, letter: string): boolean => {
    const size = knowledge.sizes(node.graph, node.inputs[operand]!)?.[letters.indexOf(letter)];
    return size !== undefined && isOne(size);
  };
  for (const letter of summed) {
    if (!a.includes(letter) && !isSingle(b, 1, letter)) return null;
    if (!b.includes(letter) && !isSingle(a, 0, letter)) return null;
  }
  return { node, operands: [a, b], output, alpha: 1, addend: null };
}

/** The letters summed over. */
export function summedLetters(contraction: Contraction): string[] {
  const [a, b] = contraction.operands;
  return a.filter((letter) => b.includes(letter) && !contraction.output.includes(letter));
}

/**
 * Gives every letter its axis. Letters in `known` keep the axis given there; the others get fresh ones.
 * @returns axes by letter, or `null` when shapes are unknown
 */
export function labelLetters(
  contraction: Contraction,
  knowledge: Knowledge,
  space: AxisSpace,
  known: ReadonlyMap<string, Axis>,
): Map<string, Axis> | null {
  const { node } = contraction;
  const axes = new Map<string, Axis>();
  const sizes = new Map<string, Size>();
  for (const [operand, letters] of contraction.operands.entries()) {
    const shape = knowledge.sizes(node.graph, node.inputs[operand]!);
    if (shape === null || shape.length !== letters.length) return null;
    letters.forEach((letter, axis) => {
      const before = sizes.get(letter);
      if (before === undefined || isOne(before)) sizes.set(letter, shape[axis]!);
    });
  }
  for (const [letter, size] of sizes) {
    const given = known.get(letter);
    axes.set(letter, given !== undefined && given.length > 0 ? given : space.axis(size));
  }
  return axes;
}

/** Axes of one operand (0, 1) or of the result (2) under the labels; an operand axis of size 1 that broadcasts has none. */
export function labelledAxes(
  contraction: Contraction,
  part: 0 | 1 | 2,
  labels: ReadonlyMap<string, Axis>,
  knowledge: Knowledge,
): Axis[] | null {
  if (part === 2) return contraction.output.map((letter) => labels.get(letter) ?? []);
  const { node } = contraction;
  const shape = knowledge.sizes(node.graph, node.inputs[part]!);
  if (shape === null) return null;
  return contraction.operands[part].map((letter, axis) =>
    isOne(shape[axis]!) ? [] : (labels.get(letter) ?? []),
  );
}
