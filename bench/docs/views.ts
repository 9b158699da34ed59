/** How each benchmark's data is shown, by the name of its file in docs/data. */
import type { Row, View } from './page.js';

const RATIO_TITLE = 'Speed against the best other implementation (1: the same)';

const ratioBar =
  (label: (row: Row) => string, group: (row: Row) => string) =>
  (row: Row): { label: string; value: number; group: string } | null =>
    typeof row['ratio'] === 'number' ? { label: label(row), value: row['ratio'], group: group(row) } : null;

const text = (value: unknown): string => (value === undefined || value === null ? '' : String(value));

/** Converter rows by exporter. */
function byExporter(rows: readonly Row[]): Row[] {
  const exporters = [...new Set(rows.map((row) => text(row['exporter'])))].sort();
  return exporters.map((exporter) => {
    const own = rows.filter((row) => row['exporter'] === exporter);
    const positive = own.filter((row) => row['polarity'] === 'positive');
    const share = (key: string): number => positive.filter((row) => row[key] === true).length;
    return {
      exporter,
      positives: positive.length,
      'fully replaced': share('fullyReplaced'),
      verified: positive.filter((row) => row['fullyReplaced'] === true && row['verified'] === true).length,
      'other models': own.length - positive.length,
      'falsely replaced': own.filter(
        (row) => text(row['polarity']).startsWith('negative') && Number(row['replaced']) > 0,
      ).length,
    };
  });
}

export const VIEWS: Readonly<Record<string, View>> = {
  cpu: {
    title: 'CPU kernel',
    text:
      'The operator against every other way to compute attention in ONNX Runtime, in the same process and on the same ' +
      'threads. A ratio above 1 means that the operator is faster than the best of them.',
    command: 'npm run bench:cpu -- --json docs/data/cpu.json',
    columns: ['shape', 'type', 'threads', 'best', 'ratio', 'sgemmShare'],
    plot: {
      title: RATIO_TITLE,
      line: 1,
      bar: ratioBar(
        (row) => `${text(row['shape'])} ${text(row['type'])}`,
        (row) => `${text(row['threads'])} threads`,
      ),
    },
  },
  web: {
    title: 'Browser',
    text: 'Converted models on our WGSL kernels against the original on the WebGPU provider of onnxruntime-web.',
    command: 'npm run bench:web -- --json docs/data/web.json',
    plot: {
      title: RATIO_TITLE,
      line: 1,
      bar: ratioBar(
        (row) => text(row['shape'] ?? row['name']),
        () => 'ratio',
      ),
    },
  },
  cuda: {
    title: 'CUDA kernels',
    text: 'The CUDA kernels against the attention operators of ONNX Runtime and other libraries on one GPU.',
    command: 'python bench/cuda/native.py --json docs/data/cuda.json',
    plot: {
      title: RATIO_TITLE,
      line: 1,
      bar: ratioBar(
        (row) => text(row['shape'] ?? row['name'] ?? row['case']),
        (row) => text(row['type'] ?? 'ratio'),
      ),
    },
  },
  converter: {
    title: 'Converter',
    text:
      'Every model of the zoo is converted, run beside the original and compared. Models with attention that must be ' +
      'replaced are positives; the others must be left alone.',
    command: 'npm run bench:converter -- --json docs/data/converter.json',
    grouped: byExporter,
    plot: {
      title: 'Share of models replaced in full and verified, by exporter',
      line: 1,
      bar: (row) => {
        const positives = Number(row['positives']);
        return positives === 0
          ? null
          : { label: text(row['exporter']), value: Number(row['verified']) / positives, group: 'verified' };
      },
    },
  },
  fidelity: {
    title: 'Fidelity',
    text: 'What the modes do to models at their task. Calibrated models are fitted on other data than they are judged on.',
    command: 'npm run bench:fidelity -- --json docs/data/fidelity.json',
    columns: ['task', 'form', 'kept', 'sites', 'value', 'differing', 'decisions', 'fitSeconds'],
    plot: {
      title: "Decisions that differ from the original's, per cent",
      line: null,
      bar: (row) =>
        Number(row['decisions']) > 0
          ? {
              label: `${text(row['form'])}${Number(row['kept']) > 0 ? `, ${text(row['kept'])} kept` : ''}`,
              value: (100 * Number(row['differing'])) / Number(row['decisions']),
              group: text(row['task']),
            }
          : null,
    },
  },
};

/** For data that has no view. */
export function plainView(name: string): View {
  return {
    title: `Benchmark ${name}`,
    text: 'Ratios above 1 mean that ours is faster.',
    command: `npm run bench:${name} -- --json docs/data/${name}.json`,
    plot: {
      title: RATIO_TITLE,
      line: 1,
      bar: ratioBar(
        (row) => text(row['name'] ?? row['shape'] ?? row['model']),
        () => 'ratio',
      ),
    },
  };
}
