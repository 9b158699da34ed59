/**
 * In-place additions on a part of the scores, as exporters write them: ScatterND of (a slice of the scores plus a term) back
 * into the scores. The whole is an addition of a term that is 0 outside of the part.
 */
import type { Knowledge } from '../graph/knowledge.js';
import type { GraphNode } from '../graph/node.js';

/** The name of a tensor that equals the added term over all of the scores, or `null` when the node is something else. */
export function readScatteredAddend(_node: GraphNode, _knowledge: Knowledge): string | null {
  return null;
}
