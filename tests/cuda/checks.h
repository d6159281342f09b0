// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "runner.h"

namespace harness {

// Prints a check and counts it as failed where the error is not within the tolerance.
void expect(const std::string& name, double error, double tolerance);

}  // namespace harness
