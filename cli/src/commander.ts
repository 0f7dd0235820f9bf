// commander, through `require`: its CommonJS files cost an `import` a scan for export names and a read of their own,
// together some 5 ms of the 60 that Node needs to start (docs/performance.md).
import commander = require('commander');

export const { Argument, Command, CommanderError, InvalidArgumentError, Option } = commander;
export type Command = commander.Command;
export type Option = commander.Option;
export type OutputConfiguration = commander.OutputConfiguration;
