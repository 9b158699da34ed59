/** A part of a graph as a picture: nodes as boxes in layers from top to bottom, values as curves between them. */
import type { GraphNode } from '../graph/node.js';
import { nodeLabel } from '../graph/node.js';
import { drawing, escaped, tail } from './html.js';

const BOX = { width: 132, height: 34 };
const PILL = { width: 84, height: 22 };
const GAP = { x: 18, y: 34 };
const MARGIN = 10;
/** Larger parts say less than a sentence does. */
export const MOST_NODES = 60;

export interface Subgraph {
  readonly nodes: readonly GraphNode[];
  readonly description: string;
  /** Nodes that are drawn in the colour of the operator. */
  readonly accent: (node: GraphNode) => boolean;
  /** What values from outside mean: query, key, value, mask... */
  readonly sources: ReadonlyMap<string, string>;
}

export function subgraphPicture({ nodes, description, accent, sources }: Subgraph): string {
  const producer = producers(nodes);
  const layers = layered(nodes);
  const outside = [...sources.keys()].filter(
    (name) => !producer.has(name) && nodes.some((node) => node.inputs.includes(name)),
  );
  const widest = Math.max(...layers.map((layer) => layer.length));
  const pills = outside.length * PILL.width + (outside.length - 1) * GAP.x;
  const width = 2 * MARGIN + Math.max(pills, widest * BOX.width + (widest - 1) * GAP.x);
  const top = outside.length > 0 ? PILL.height + GAP.y : 0;
  const height = 2 * MARGIN + top + layers.length * BOX.height + (layers.length - 1) * GAP.y;
  const origins = new Map<string, { x: number; y: number }>();
  const place = new Map<GraphNode, { x: number; y: number }>();
  layers.forEach((layer, level) => {
    const own = layer.length * BOX.width + (layer.length - 1) * GAP.x;
    layer.forEach((node, index) => {
      place.set(node, {
        x: (width - own) / 2 + index * (BOX.width + GAP.x),
        y: MARGIN + top + level * (BOX.height + GAP.y),
      });
    });
  });
  for (const [node, { x, y }] of place) {
    for (const output of node.outputs) origins.set(output, { x: x + BOX.width / 2, y: y + BOX.height });
  }
  const edges: string[] = [];
  const boxes: string[] = outside.map((name, index) => {
    const x = (width - pills) / 2 + index * (PILL.width + GAP.x);
    origins.set(name, { x: x + PILL.width / 2, y: MARGIN + PILL.height });
    return (
      `<g class="source"><title>${escaped(name)}</title>` +
      `<rect x="${x}" y="${MARGIN}" width="${PILL.width}" height="${PILL.height}" rx="${PILL.height / 2}"/>` +
      `<text x="${x + PILL.width / 2}" y="${MARGIN + 15}">${escaped(sources.get(name)!)}</text></g>`
    );
  });
  for (const [node, { x, y }] of place) {
    node.inputs.forEach((input, index) => {
      const origin = origins.get(input);
      if (!origin) return;
      const { x: x1, y: y1 } = origin;
      const x2 = x + (BOX.width * (index + 1)) / (node.inputs.length + 1);
      const bend = Math.max(14, (y - y1) / 2);
      edges.push(
        `<path class="edge" d="M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y - bend} ${x2} ${y}"><title>${escaped(input)}</title></path>`,
      );
    });
    boxes.push(
      `<g class="node${accent(node) ? ' accent' : ''}"><title>${escaped(nodeLabel(node))}</title>` +
        `<rect x="${x}" y="${y}" width="${BOX.width}" height="${BOX.height}" rx="7"/>` +
        `<text class="type" x="${x + BOX.width / 2}" y="${y + 15}">${escaped(tail(node.opType, 18))}</text>` +
        `<text class="name" x="${x + BOX.width / 2}" y="${y + 27}">${escaped(tail(nodeLabel(node), 22))}</text></g>`,
    );
  }
  return drawing(width, height, description, edges.join('') + boxes.join(''));
}

function producers(nodes: readonly GraphNode[]): Map<string, GraphNode> {
  const producer = new Map<string, GraphNode>();
  for (const node of nodes) for (const output of node.outputs) if (output !== '') producer.set(output, node);
  return producer;
}

/** Nodes by their longest distance from the top; within a layer below the nodes that feed them. */
function layered(nodes: readonly GraphNode[]): GraphNode[][] {
  const producer = producers(nodes);
  const level = new Map<GraphNode, number>();
  const levelOf = (node: GraphNode): number => {
    const known = level.get(node);
    if (known !== undefined) return known;
    level.set(node, 0);
    let own = 0;
    for (const input of node.inputs) {
      const from = producer.get(input);
      if (from && from !== node) own = Math.max(own, levelOf(from) + 1);
    }
    level.set(node, own);
    return own;
  };
  const layers: GraphNode[][] = [];
  for (const node of nodes) (layers[levelOf(node)] ??= []).push(node);
  const centre = new Map<GraphNode, number>();
  for (const layer of layers) {
    const weight = (node: GraphNode): number => {
      const above = node.inputs.flatMap((input) => {
        const from = producer.get(input);
        return from && centre.has(from) ? [centre.get(from)!] : [];
      });
      return above.length > 0 ? above.reduce((sum, x) => sum + x, 0) / above.length : 0;
    };
    layer.sort((a, b) => weight(a) - weight(b));
    layer.forEach((node, index) => centre.set(node, index - (layer.length - 1) / 2));
  }
  return layers;
}
