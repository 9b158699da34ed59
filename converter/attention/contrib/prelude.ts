/** Nodes that a reading of a contrib operator needs ahead of the attention, and names for what they make. */
import type { Emitter } from '../../rewrite/emitter.js';
import { nodeLabel, type GraphNode } from '../../graph/node.js';

export type Step = (emitter: Emitter) => void;

/** Values that a reading adds to the model, and the nodes that will make them. */
export class Prelude {
  private readonly steps: Step[] = [];
  private count = 0;

  constructor(private readonly node: GraphNode) {}

  /** A name that nothing in the model has. */
  name(role: string): string {
    let name = `${nodeLabel(this.node)}/${role}`;
    while (this.node.graph.definer(name) !== null) name += `_${++this.count}`;
    return name;
  }

  add(step: Step): void {
    this.steps.push(step);
  }

  readonly run = (emitter: Emitter): void => this.steps.forEach((step) => step(emitter));
}
