"""Interpreter of pickles that executes nothing: it imports no name and creates no object of a pickled class.

``pickle.Unpickler`` imports the names in a pickle and calls them. ``PickleReader`` is an interpreter of the same
opcodes for files from others. A name stays a ``Name``, and only functions of the caller are called. In addition:

- Opcodes that only pickles of objects contain are errors (INST, OBJ, EXT and out-of-band buffers).
- Only exact lists, dictionaries and sets are extended. Keys are text, bytes and numbers, because hashing and comparing
  nested tuples with shared parts takes exponential time.
- Lengths are compared with the remaining bytes before anything is allocated, and memo indexes are dictionary keys.

Time and memory are therefore proportional to the length of the pickle.
"""

import pickle
from typing import Any

from mmf_flava.errors import UserError
from mmf_flava.files.pickle_opcodes import NAMES, OPERATIONS
from mmf_flava.files.pickle_stack import PickleError, PickleStack, Unfinished

# the opcodes of most values of a list of dictionaries, which ``_run`` executes without a call
GET1, GET4, MEMOIZE, TEXT1, TEXT4 = (
    code[0] for code in (pickle.BINGET, pickle.LONG_BINGET, pickle.MEMOIZE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE)
)
STOP = pickle.STOP[0]
OTHERS = {code[0]: operation for code, operation in OPERATIONS.items()}


class PickleReader(PickleStack):
    """Reader of one pickle."""

    def load(self) -> Any:
        """Return the object. ``position`` is then the end of the pickle.

        Raises:
            PickleError: the pickle is invalid or contains something that is not accepted. Nothing was executed.
            UserError: raised by a function of the caller.
        """
        try:
            return self._run()
        except (PickleError, UserError, MemoryError):
            raise
        except Exception as error:  # a damaged pickle can raise almost any exception
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise PickleError(f"the pickle is damaged at byte {self.position} ({reason[:200]})")

    def _run(self) -> Any:
        data, memo, others = self.data, self.memo, OTHERS
        stack, position = self.stack, 0
        while True:
            opcode = data[position]
            position += 1
            self.values += 1
            if opcode == GET1:
                stack.append(memo[data[position]])
                position += 1
            elif opcode == GET4:
                stack.append(memo[int.from_bytes(data[position : position + 4], "little")])
                position += 4
            elif opcode == MEMOIZE:
                memo[len(memo)] = value = stack[-1]
                if isinstance(value, Unfinished):
                    value.memo_indexes.append(len(memo) - 1)
            elif opcode in (TEXT1, TEXT4):
                start = position + (1 if opcode == TEXT1 else 4)
                position = start + int.from_bytes(data[position:start], "little")
                if position > len(data):
                    raise PickleError("the pickle is cut off")
                stack.append(data[start:position].decode("utf-8", "surrogatepass"))
            elif opcode == STOP:
                self.position = position
                (result,) = stack
                return result
            else:
                operation = others.get(opcode)
                if operation is None:
                    name = NAMES.get(opcode, f"0x{opcode:02x}")
                    raise PickleError(f"the pickle contains the opcode {name}, which is not supported")
                self.position = position
                operation(self)
                stack, position = self.stack, self.position
