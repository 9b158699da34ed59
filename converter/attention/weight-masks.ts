/**
 * Masks that set weights to 0 after a softmax. The operator hides keys before it normalises, so such a mask is no more than
 * a guard where the scores of its keys were hidden already. That is shown by trying: the masks are worked out for several
 * patterns of the model inputs they come from.
 */
import type { Environment } from '../graph/environment.js';
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import { nodeLabel } from '../graph/node.js';
import { numeric, type NumericTensor } from '../graph/numeric.js';
import { elementCount } from '../onnx/tensor.js';
import { canonicalValue, type CanonicalValue } from './canonical.js';
import type { Derived } from './derive.js';
import { EXCLUDED, Refused, type Visibility } from './form.js';
import { elementAt } from './row-coverage.js';

/** Each pattern says which positions of the inputs are 1. */
const PATTERNS: readonly ((index: number) => boolean)[] = [
  () => true,
  () => false,
  (index) => index % 2 === 0,
  (index) => index % 3 !== 0,
  (index) => (index * 7919) % 11 < 6,
];

/** Inputs that masks are made from are small. */
const MAX_ELEMENTS = 1 << 16;
const MAX_INPUTS = 4;
const MAX_VISITS = 400;

/** @throws Refused when weights are set to 0 that the softmax counted */
export function checkZeroedWeights(site: Derived, knowledge: Knowledge): void {
  const { form } = site;
  for (const entry of form.zeroed) {
    const isKnown = form.visible.some(
      ({ condition, negated }) => condition.name === entry.condition.name && negated === entry.negated,
    );
    if (!isKnown && !hidesNothingNew(site, entry, knowledge)) {
      throw new Refused(
        'weights-changed',
        `'${nodeLabel(entry.node)}' hides weights after they were normalised`,
        [entry.node],
      );
    }
    form.guarded = true;
  }
}

function hidesNothingNew(site: Derived, entry: Visibility, knowledge: Knowledge): boolean {
  const roots = inputsOf(site.graph, entry.condition.name);
  if (roots === null) return false;
  return knowledge.environments.every((environment, index) =>
    PATTERNS.every((pattern) => {
      const given = new Map<string, NumericTensor>();
      for (const name of roots) {
        const dims = environment.dims(site.graph, name);
        const type = knowledge.type(site.graph, name);
        if (dims === null || elementCount(dims) > MAX_ELEMENTS) return false;
        given.set(
          name,
          numeric(
            type,
            dims,
            Float64Array.from({ length: elementCount(dims) }, (_, i) => Number(pattern(i))),
          ),
        );
      }
      return isCovered(site, entry, environment, index, given);
    }),
  );
}

/** Every key that the mask takes away from a row was hidden from it before. */
function isCovered(
  site: Derived,
  entry: Visibility,
  environment: Environment,
  index: number,
  given: ReadonlyMap<string, NumericTensor>,
): boolean {
  const read = ({ name, axes }: Visibility['condition']): CanonicalValue | null => {
    const value = environment.evaluate(site.graph, name, given);
    return value === null ? null : canonicalValue(site, axes, value, index);
  };
  const after = read(entry.condition);
  if (after === null) return false;
  const before: { value: CanonicalValue; hides: (entry: number) => boolean }[] = [];
  for (const { condition, negated, fill } of site.form.visible) {
    const value = fill <= EXCLUDED ? read(condition) : null;
    if (value !== null) before.push({ value, hides: (flag) => (flag !== 0) === negated });
  }
  for (const { tensor, factor } of site.form.addends) {
    const value = read(tensor);
    if (value !== null) before.push({ value, hides: (number) => number * factor <= EXCLUDED });
  }
  const all = [after, ...before.map(({ value }) => value)];
  const dims = after.dims.map((_, axis) => Math.max(...all.map((value) => value.dims[axis]!)));
  const [batches, heads, rows, keys] = dims as [number, number, number, number];
  if (elementCount(dims) > 1 << 22) return false;
  for (let b = 0; b < batches; b++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < keys; j++) {
          const isZeroed = (elementAt(after, [b, h, i, j]) !== 0) === entry.negated;
          if (isZeroed && !before.some(({ value, hides }) => hides(elementAt(value, [b, h, i, j]))))
            return false;
        }
  return true;
}

/** The model inputs that a value is computed from; `null` when they are many, or lie outside of the graph. */
function inputsOf(graph: Graph, name: string): string[] | null {
  const found = new Set<string>();
  const seen = new Set<string>();
  const pending = [name];
  while (pending.length > 0) {
    const current = pending.pop()!;
    if (current === '' || seen.has(current)) continue;
    seen.add(current);
    if (seen.size > MAX_VISITS) return null;
    const home = graph.definer(current);
    const node = home?.producer(current);
    if (node !== undefined) {
      const readsShape = node.domain === '' && (node.opType === 'Shape' || node.opType === 'Size');
      if (!readsShape) pending.push(...node.inputs);
    } else if (home?.initializers.has(current) !== true) found.add(current);
  }
  return found.size > MAX_INPUTS ? null : [...found];
}
