/** Weights: softmax and sigmoid in each spelling, and what exporters leave behind them. */
import { FLOAT } from '../../../proving/model-builder.js';
import type { Writer } from './writer.js';

export function activate(w: Writer, scores: string): string {
  const { r, b } = w;
  const last = w.isMerged ? 2 : 3;
  switch (r.activation) {
    case 'softmax':
      return b.op('Softmax', [scores], { axis: r.opset >= 13 && w.random.chance(0.5) ? -1 : last });
    case 'softmax-cast': {
      const wide = b.op('Softmax', [b.op('Cast', [scores], { to: FLOAT })], { axis: last });
      return b.op('Cast', [wide], { to: w.type });
    }
    case 'softmax-moved': {
      const perm = w.isMerged ? [0, 2, 1] : [0, 1, 3, 2];
      const moved = b.op('Transpose', [scores], { perm });
      if (r.opset < 13) return b.op('Softmax', [b.op('Transpose', [moved], { perm })], { axis: last });
      return b.op('Transpose', [b.op('Softmax', [moved], { axis: last - 1 })], { perm });
    }
    case 'written': {
      const shifted = b.op('Sub', [scores, b.reduce('ReduceMax', scores, last)]);
      const exponentials = b.op('Exp', [shifted]);
      return b.op('Div', [exponentials, b.reduce('ReduceSum', exponentials, last)]);
    }
    case 'written-reciprocal': {
      const exponentials = b.op('Exp', [b.op('Sub', [scores, b.reduce('ReduceMax', scores, last)])]);
      return b.op('Mul', [exponentials, b.op('Reciprocal', [b.reduce('ReduceSum', exponentials, last)])]);
    }
    case 'log-softmax':
      return b.op('Exp', [b.op('LogSoftmax', [scores], { axis: last })]);
    case 'sigmoid':
      return b.op('Sigmoid', [scores]);
    case 'sigmoid-exp':
      return b.op('Div', [w.scalar(1), b.op('Add', [w.scalar(1), b.op('Exp', [b.op('Neg', [scores])])])]);
    case 'sigmoid-tanh': {
      const half = b.op('Mul', [scores, w.scalar(0.5)]);
      return b.op('Mul', [b.op('Add', [b.op('Tanh', [half]), w.scalar(1)]), w.scalar(0.5)]);
    }
  }
}

export function afterActivation(w: Writer, weights: string): string {
  const { r, b } = w;
  const guarded =
    r.guard && r.opset >= 13 ? b.op('Where', [b.op('IsNaN', [weights]), w.scalar(0), weights]) : weights;
  switch (r.noise) {
    case 'dropout':
      return b.op('Dropout', [guarded]);
    case 'identity':
      return b.op('Identity', [guarded]);
    case 'cast':
      return b.op('Cast', [guarded], { to: w.type });
    case 'scale-weights':
      return b.op('Mul', [guarded, w.scalar(0.5)]);
    case 'none':
      return guarded;
  }
}
