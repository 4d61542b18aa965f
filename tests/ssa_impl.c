/* ssa_impl.c - the one translation unit of the tests that holds the library, every option at its default */
#define SSA_IMPLEMENTATION
#include "../ssa.h"
