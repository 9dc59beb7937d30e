#include <ckptring/drain.h>

int main(int argc, char** argv) { return ckptring::drain_main(argc, argv); }
