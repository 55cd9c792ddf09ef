/*
 * An unwinder that finds nothing, for programs that abort when they panic and carry no unwind tables: in them a real
 * one (36 KB on MIPS) could not find anything either. std links one for the backtrace of a panic's message, which
 * therefore is empty; the message itself, with file and line, is not.
 *
 * Only what std refers to is here. Should it come to need more, the linker finds it in zig's libunwind and complains
 * about functions that are there twice.
 */

typedef int (*unwind_trace_fn)(void *context, void *argument);

/* _URC_END_OF_STACK */
int _Unwind_Backtrace(unwind_trace_fn trace, void *argument) { (void)trace, (void)argument; return 5; }

unsigned long _Unwind_GetIP(void *context) { (void)context; return 0; }
unsigned long _Unwind_GetIPInfo(void *context, int *before) { (void)context; *before = 0; return 0; }
unsigned long _Unwind_GetCFA(void *context) { (void)context; return 0; }
unsigned long _Unwind_GetLanguageSpecificData(void *context) { (void)context; return 0; }
unsigned long _Unwind_GetRegionStart(void *context) { (void)context; return 0; }
unsigned long _Unwind_GetTextRelBase(void *context) { (void)context; return 0; }
unsigned long _Unwind_GetDataRelBase(void *context) { (void)context; return 0; }
void *_Unwind_FindEnclosingFunction(void *pc) { (void)pc; return 0; }
void _Unwind_SetGR(void *context, int index, unsigned long value) { (void)context, (void)index, (void)value; }
void _Unwind_SetIP(void *context, unsigned long value) { (void)context, (void)value; }

/* Nothing is ever thrown. */
void _Unwind_Resume(void *exception) { (void)exception; __builtin_trap(); }
