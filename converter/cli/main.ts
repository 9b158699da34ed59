#!/usr/bin/env node
/** The command line `sigmoid-attention`. docs/guide.md shows it at work. */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { Bound } from '../calibrate/judge.js';
import { benchCommand } from './bench-command.js';
import { convertCommand, type ConvertCommandOptions } from './convert-command.js';
import { EXIT, Failure, runtimeErrorText, type ExitCode } from './failure.js';
import { inspectCommand, type InspectOptions } from './inspect-command.js';
import { libraryCommand } from './library-command.js';
import { tritonCommand, type TritonOptions } from './triton-command.js';
import { verifyCommand, type VerifyOptions } from './verify-command.js';

const MODES = ['fuse', 'faithful', 'calibrated', 'paper'] as const;

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('a whole number is needed.');
  return value;
}

function countOrAuto(text: string): number | 'auto' {
  if (text === 'auto') return text;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0)
    throw new InvalidArgumentError('a whole number or "auto" is needed.');
  return value;
}

/** `0.002`, or `3%` of the original's. */
function bound(text: string): Bound {
  const relative = text.endsWith('%');
  const value = Number(relative ? text.slice(0, -1) : text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError('a number that is not negative, or one with % is needed.');
  }
  return { amount: relative ? value / 100 : value, relative };
}

const data = (): Option =>
  new Option('--data <path>', 'sample inputs: .npz, .npy, ONNX test data or a module that yields feeds');
const json = (): Option => new Option('--json', 'print the result as JSON');
const seed = (): Option =>
  new Option('--seed <n>', 'seed of random inputs and of sampling').default(1).argParser(wholeNumber);
const report = (): Option => new Option('--report <file>', 'write an HTML page that explains the result');

/** Parses arguments (without `node` and the script), runs the command and returns the exit code. */
export async function run(argv: readonly string[]): Promise<ExitCode> {
  let code: ExitCode = EXIT.done;
  const program = new Command('sigmoid-attention')
    .description('Finds attention in ONNX models and replaces it by sigmoid attention.')
    .showSuggestionAfterError()
    .exitOverride();

  program
    .command('inspect')
    .description('list the attention sites of a model, the meaning of each, or why it cannot be replaced')
    .argument('<model>', 'an ONNX file')
    .addOption(
      new Option('--stats', 'measure attention norms, largest scores, entropy and saturation on inputs'),
    )
    .addOption(data())
    .addOption(seed())
    .addOption(report())
    .addOption(json())
    .action(async (file: string, options: InspectOptions) => inspectCommand(file, options));

  program
    .command('convert')
    .description('replace attention and verify the result')
    .argument('<model>', 'an ONNX file')
    .requiredOption('-o, --output <file>', 'where the converted model goes')
    .addOption(
      new Option('--mode <mode>', 'what becomes of softmax: see docs/guide.md')
        .choices(MODES)
        .makeOptionMandatory(),
    )
    .addOption(data())
    .addOption(
      new Option(
        '--keep <n>',
        'calibrated: leave the n worst layers faithful; auto: the fewest that stay --within a bound',
      ).argParser(countOrAuto),
    )
    .addOption(
      new Option(
        '--within <bound>',
        "how far --keep auto lets the metric move (0.002, or 3%), or else the outputs' relative L2 distance (default 5%)",
      ).argParser(bound),
    )
    .addOption(new Option('--metric <module>', 'a module that scores a model on its task'))
    .addOption(
      new Option(
        '--emit <form>',
        'operator, or decomposed: standard operators only, for a training framework',
      )
        .choices(['operator', 'decomposed'])
        .default('operator'),
    )
    .addOption(new Option('--copy-external-data', 'copy external data files beside the output'))
    .addOption(seed())
    .addOption(report())
    .addOption(json())
    .action(async (file: string, options: ConvertCommandOptions) => {
      code = await convertCommand(file, options);
    });

  program
    .command('verify')
    .description('run two models on the same inputs and compare')
    .argument('<original>', 'an ONNX file')
    .argument('<converted>', 'an ONNX file')
    .addOption(data())
    .addOption(seed())
    .addOption(json())
    .action(async (original: string, converted: string, options: VerifyOptions) => {
      code = await verifyCommand(original, converted, options);
    });

  program
    .command('bench')
    .description('time models in turns on the same inputs')
    .argument('<models...>', 'ONNX files; the first is what the others are compared with')
    .addOption(data())
    .addOption(seed())
    .addOption(json())
    .action(async (files: string[], options: VerifyOptions) => benchCommand(files, options));

  program
    .command('export-triton')
    .description('write a model repository for Triton Inference Server')
    .argument('<model>', 'an ONNX file')
    .requiredOption('-o, --output <folder>', 'the repository; other models in it stay')
    .option('--name <name>', "the model's name in the repository")
    .addOption(new Option('--device <device>', 'what runs it').choices(['cpu', 'cuda']).default('cpu'))
    .addOption(new Option('--instances <n>', 'copies that serve at a time').default(1).argParser(wholeNumber))
    .addOption(
      new Option('--max-batch-size <n>', 'largest batch of requests; 0: none')
        .default(0)
        .argParser(wholeNumber),
    )
    .addOption(
      new Option('--queue-delay <us>', 'how long a request waits for others')
        .default(100)
        .argParser(wholeNumber),
    )
    .option('--served-from <path>', "the repository's path on the server", '/models')
    .addOption(json())
    .action((file: string, options: TritonOptions) => tritonCommand(file, options));

  program
    .command('library')
    .description('print the path of the custom-operator library')
    .addOption(json())
    .action((options: { json?: boolean }) => libraryCommand(options));

  try {
    await program.parseAsync([...argv], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    if (error instanceof Failure) {
      process.stderr.write(`error: ${error.message}\n`);
      return error.exitCode;
    }
    process.stderr.write(`error: ${runtimeErrorText(error)}\n`);
    return EXIT.invalidModel;
  }
}

process.exitCode = await run(process.argv.slice(2));
